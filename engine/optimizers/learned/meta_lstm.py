"""Meta-LSTM: the parameters are the cell state of an LSTM, and its gates are learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, Phi, State, StepInfo, uniform
from engine.optimizers.learned.dm import log_sign
from engine.optimizers.learned.lstm import CoordinatewiseLSTM

BOUND = 0.01  # of the fresh meta-parameters
FORGET_BIAS = (4.0, 6.0)  # the range of the forget gate's fresh bias: parameters are kept
INPUT_BIAS = (-5.0, -4.0)  # likewise of the input gate's: gradient descent with a small step


@LEARNED_OPTIMIZERS.register("meta-lstm")
class MetaLSTM(CoordinatewiseLSTM):
    """θ_t = σ(f) θ_{t-1} - σ(i) g: a learned decay and a learned step size of every coordinate at every step.

    Ravi & Larochelle 2017, "Optimization as a Model for Few-Shot Learning", sec. 3.2 and 3.3. An LSTM, shared by all
    coordinates, is shown the log and sign of gradient and loss; of its output x, θ_{t-1} and the last gates before
    their sigmoid, f = [x, θ, f'] W_F + b_F and i = [x, θ, i'] W_I + b_I. Gradient, loss and what is made of them are
    constants; θ and the gates are differentiated from step to step. Meant to go with `meta.learn_start`.
    """

    coordinatewise: ClassVar[bool] = False  # the loss is the same for all, and theta is differentiated
    differentiates_theta: ClassVar[bool] = True
    gradient_features: ClassVar[int] = 1  # the bare gradient that the gates let in, and not what the LSTM is shown

    layers: int = setting(1, minimum=1, maximum=8, help="LSTM layers below the gates")
    preprocess: float = setting(
        10.0, above=0.0, maximum=80.0, help="p of the log-sign preprocessing: threshold exp(-p)"
    )

    def init_phi(self, generator: Generator) -> Phi:
        fresh = self.lstm_phi(4 + self.extra_inputs, generator)
        phi: Phi = {
            name: uniform(tuple(tensor.shape), BOUND, generator)
            for name, tensor in fresh.items()
            if name.startswith("lstm")
        }
        phi["gates.weight"] = uniform((self.hidden + 2, 2), BOUND, generator)  # rows: x, theta, the last gate
        ranges = torch.tensor([FORGET_BIAS, INPUT_BIAS])
        phi["gates.bias"] = ranges[:, 0] + torch.rand(2, generator=generator) * (ranges[:, 1] - ranges[:, 0])
        return phi

    def init(self, theta: Tensor) -> State:
        gates = {"gates": theta.new_zeros(*theta.shape, 2)}
        return self.lstm_state(theta) | gates | self.extra_state(theta)

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None) -> tuple[Tensor, State]:
        """The gradient, log and sign of gradient and loss, `features`, and theta: [..., P, 6 + extra].

        Where there is no info, the loss is taken for 0.
        """
        extra, state = self.extra_features(theta.detach(), grad, state, info)
        seen_loss = torch.zeros_like(grad[..., 0]) if info is None else info.loss
        loss = [part[..., None].expand_as(grad) for part in log_sign(seen_loss, self.preprocess)]
        extra += [theta.detach()] if self.theta_input else []
        return torch.stack([grad, *log_sign(grad, self.preprocess), *loss, *extra, theta], -1), state

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        grad, theta = features[..., 0], features[..., -1]
        gates, state = self._gates(phi, features, state)
        return _let_through(gates, theta, grad), {**state, "gates": gates}

    def update_of(self, phi: Phi, features: Tensor, state: State, free: int | None) -> Callable[[Tensor], Tensor]:
        """The bare gradient, the first feature, is let in by gates that have not seen it: these are computed once."""
        if free != 1:
            return super().update_of(phi, features, state, free)
        gates, _ = self._gates(phi, features, state)
        return lambda moved: _let_through(gates, features[..., -1], moved[..., 0])

    def _gates(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Forget and input gate before their sigmoid, [..., P, 2], and the LSTM's next state."""
        x, state = self.lstm_cells(phi, features[..., 1:-1], state)
        before, theta = state["gates"], features[..., -1:]
        by_output, by_theta, by_gate = phi["gates.weight"].split([self.hidden, 1, 1])
        gates = torch.addmm(phi["gates.bias"], x, by_output).view_as(before)
        return gates + theta * by_theta[0] + before * by_gate[0], state


def _let_through(gates: Tensor, theta: Tensor, grad: Tensor) -> Tensor:
    forget, enter = gates.sigmoid().unbind(-1)
    return (forget - 1) * theta - enter * grad
