"""mlp: a small network for each coordinate on six momenta, normalised over the tensor, and on the time."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, Phi, Scope, State, StepInfo
from engine.optimizers.learned.features import bounded
from engine.optimizers.learned.tensor_mlp import TensorMLP
from engine.tasks.base import Layout

DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


@LEARNED_OPTIMIZERS.register("mlp")
class MLP(TensorMLP):
    """MLP on gradient, parameter and momenta (Metz et al. 2019, arXiv:1810.10180; learned_optimization's mlp_lopt).

    m_b <- b m_b + (1 - b) g, b = .1, .5, .9, .99, .999, .9999, from zero, no correction, updated before use. Features
    g, θ, the six m, each over √(1e-5 + its mean square over the tensor); tanh(t/τ - 1), τ = 1, 3, 10, ..., 1e5. Network
    19-32-32-2, ReLU, outputs d and a: u = -0.001 d exp(0.001 a).
    """

    coordinatewise: ClassVar[bool] = True
    scope: ClassVar[Scope] = "tensor"

    hidden: int = setting(32, minimum=1, maximum=1024, help="hidden units for each coordinate, in each of two layers")

    def init_phi(self, generator: Generator) -> Phi:
        return self.mlp_phi(1 + len(DECAYS), generator)

    def init(self, theta: Tensor) -> State:
        momenta = theta.new_zeros(*theta.shape, len(DECAYS))
        return {"momenta": momenta, "time": theta.new_zeros(())} | self.extra_state(theta)

    def observe(
        self,
        theta: Tensor,
        grad: Tensor,
        state: State,
        layout: Layout | None = None,
        info: StepInfo | None = None,
    ) -> tuple[Tensor, State]:
        grad = bounded(grad)
        decays = torch.tensor(DECAYS, dtype=theta.dtype, device=theta.device)
        momenta = decays * state["momenta"] + (1 - decays) * grad[..., None]
        singles = [grad, theta] if self.theta_input else [grad]
        state = state | {"momenta": momenta}
        return self.shown([torch.stack(singles, -1), momenta], theta, grad, state, layout, info)
