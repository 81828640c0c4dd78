"""RNNProp: an LSTM on normalised gradients and moments."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, Network, Phi, Scope, State, StepInfo, uniform
from engine.optimizers.learned.lstm import CoordinatewiseLSTM

_STABILIZER = 1e-8  # the authors' constant in g / (sqrt(nu) + 1e-8)


@LEARNED_OPTIMIZERS.register("rnnprop")
class RNNProp(CoordinatewiseLSTM):
    """Two-layer LSTM on Adam's quantities (Lv, Jiang & Li 2017, arXiv:1703.03633).

    s = √(ν / (1 − β₂ᵗ)) + 1e-8; features g / s and m̂ / s, then linear + ELU; u = −scale · tanh(head).
    It has biases: where gradients are zero, updates are not, and parameters drift.
    """

    scope: ClassVar[Scope] = "coordinate"
    takes_info: ClassVar[bool] = False
    gradient_features: ClassVar[int] = 1

    beta1: float = setting(0.95, minimum=0.0, maximum=0.9999, help="decay of the gradient's mean")
    beta2: float = setting(0.95, minimum=0.0, maximum=0.9999, help="decay of the gradient's square")
    output_scale: float = setting(0.1, above=0.0, help="largest size of an update")

    @property
    def network(self) -> Network:
        inputs = 2 + self.extra_inputs
        return Network("lstm", inputs, self.hidden, self.layers, -self.output_scale, entrance=True, squashed=True)

    def init_phi(self, generator: Generator) -> Phi:
        inputs = 2 + self.extra_inputs
        bound = 1 / math.sqrt(inputs)
        before = {"pre.weight": uniform((inputs, self.hidden), bound, generator), "pre.bias": torch.zeros(self.hidden)}
        return before | self.lstm_phi(self.hidden, generator)

    def init(self, theta: Tensor) -> State:
        zeros = torch.zeros_like(theta)
        moments = {"mean": zeros, "square": zeros, "time": theta.new_zeros(())}
        return self.lstm_state(theta) | moments | self.extra_state(theta)

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None) -> tuple[Tensor, State]:
        extra, state = self.extra_features(theta, grad, state, info)
        time = state["time"] + 1
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * grad
        square = self.beta2 * state["square"] + (1 - self.beta2) * grad**2
        # the root of 0 has no derivative, which the second-order mode would meet
        safe = torch.where(square > 0, square, 1.0)
        scale = torch.where(square > 0, (safe / (1 - self.beta2**time)).sqrt(), 0.0) + _STABILIZER
        features = self.with_theta([grad / scale, mean / (1 - self.beta1**time) / scale, *extra], theta)
        return features, state | {"mean": mean, "square": square, "time": time}

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        flat = features.reshape(-1, features.shape[-1])
        entered = torch.nn.functional.elu(torch.addmm(phi["pre.bias"], flat, phi["pre.weight"]))
        output, state = self.lstm_step(phi, entered.reshape(*features.shape[:-1], self.hidden), state)
        return -self.output_scale * output.tanh(), state
