"""SimpleOptimizer: a small tanh RNN on the normalised gradient, without biases."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import (
    LEARNED_OPTIMIZERS,
    LearnedOptimizer,
    Network,
    Phi,
    Scope,
    State,
    StepInfo,
    uniform,
)

_FLOOR = 1e-5  # the released code's constant in g / sqrt(mean(g^2) + 1e-5)


@LEARNED_OPTIMIZERS.register("simple")
class Simple(LearnedOptimizer):
    """One-layer tanh RNN on g / √(mean g² + 1e-5), the mean over all coordinates (network of Xiong & Hsieh's code).

    Odd and free of biases: a zero gradient and a zero state give exactly no update. Well above 3e-3, the root of the
    floor, the gradient's root mean square does not matter; near it and below it does: updates fade with the gradient.
    """

    coordinatewise: ClassVar[bool] = True
    scope: ClassVar[Scope] = "mean_square"
    takes_info: ClassVar[bool] = False
    gradient_features: ClassVar[int] = 1

    output_scale: float = setting(1.0, above=0.0, help="factor of the update")

    @property
    def network(self) -> Network:
        return Network("rnn", 1 + self.extra_inputs, self.hidden, 1, self.output_scale)

    def init_phi(self, generator: Generator) -> Phi:
        bound = 1 / math.sqrt(self.hidden)
        return {
            "rnn.input": uniform((1 + self.extra_inputs, self.hidden), bound, generator),
            "rnn.hidden": uniform((self.hidden, self.hidden), bound, generator),
            "head.weight": 0.1 * uniform((self.hidden, 1), bound, generator),
        }

    def init(self, theta: Tensor) -> State:
        return {"rnn.h": theta.new_zeros(*theta.shape, self.hidden)} | self.extra_state(theta)

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None) -> tuple[Tensor, State]:
        return self.observe_part(theta, grad, state, (grad**2).mean(-1, keepdim=True), info)

    def observe_part(
        self, theta: Tensor, grad: Tensor, state: State, mean_square: Tensor, info: StepInfo | None = None
    ) -> tuple[Tensor, State]:
        extra, state = self.extra_features(theta, grad, state, info)
        normalised = grad / (mean_square + _FLOOR).sqrt()
        return self.with_theta([normalised, *extra], theta), state

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = state["rnn.h"].reshape(-1, self.hidden)
        inputs = features.reshape(-1, features.shape[-1]) @ phi["rnn.input"]
        hidden = inputs.addmm(hidden, phi["rnn.hidden"]).tanh()  # [N, H]
        update = (hidden @ phi["head.weight"]).reshape(features.shape[:-1])
        return self.output_scale * update, state | {"rnn.h": hidden.reshape(*features.shape[:-1], self.hidden)}
