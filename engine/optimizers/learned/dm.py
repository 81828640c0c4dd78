"""The coordinate-wise LSTM of "Learning to learn by gradient descent by gradient descent"."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, Network, Phi, Scope, State, StepInfo
from engine.optimizers.learned.lstm import CoordinatewiseLSTM


@LEARNED_OPTIMIZERS.register("dm")
class DM(CoordinatewiseLSTM):
    """Two-layer LSTM on the log and sign of the gradient (Andrychowicz et al. 2016, arXiv:1606.04474).

    It has biases: where gradients are zero, updates are not, and parameters drift.
    """

    scope: ClassVar[Scope] = "coordinate"
    takes_info: ClassVar[bool] = False
    gradient_features: ClassVar[int] = 2

    preprocess: float = setting(
        10.0, above=0.0, maximum=80.0, help="p of the log-sign preprocessing: threshold exp(-p)"
    )
    output_scale: float = setting(0.01, above=0.0, help="factor of the update")

    @property
    def network(self) -> Network:
        return Network("lstm", 2 + self.extra_inputs, self.hidden, self.layers, self.output_scale)

    def init_phi(self, generator: Generator) -> Phi:
        return self.lstm_phi(2 + self.extra_inputs, generator)

    def init(self, theta: Tensor) -> State:
        return self.lstm_state(theta) | self.extra_state(theta)

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None) -> tuple[Tensor, State]:
        extra, state = self.extra_features(theta, grad, state, info)
        return self.with_theta([*log_sign(grad, self.preprocess), *extra], theta), state

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        output, state = self.lstm_step(phi, features, state)
        return self.output_scale * output, state


def log_sign(grad: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The gradient's size and sign as two numbers of order 1 (arXiv:1606.04474, appendix A, in RNNProp's clamped form).

    (log(max(|g|, e⁻ᵖ)) / p,  clip(eᵖ g, −1, 1)), shapes of grad; finite for every finite g.
    """
    magnitude = grad.abs().clamp_min(math.exp(-p)).log() / p
    sign = (grad.clamp(-math.exp(-p), math.exp(-p)) * math.exp(p)).clamp(-1.0, 1.0)
    return magnitude, sign
