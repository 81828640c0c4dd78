"""Hand-designed optimizers behind the learned optimizer's contract, so that one evaluation serves both.

Their "meta-parameters" are the learning rate, shape [B, 1]: every optimizee may have its own, and a whole grid of
learning rates is tried in one batched unroll.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.learned_optimizers.base import Phi, State

LEARNING_RATES = tuple(10 ** (-4 + k / 2) for k in range(9))
"""The grid of Xiong & Hsieh: half-decade apart, 1e-4 to 1."""


class UpdateRule(Protocol):
    """What takes an inner step: a learned optimizer or a baseline. Shapes as in `engine.learned_optimizers.base`."""

    def init(self, theta: Tensor) -> State: ...

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]: ...


@dataclass(frozen=True)
class SGD:
    """u = -lr g."""

    def init(self, theta: Tensor) -> State:
        return {}

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        return -phi["learning_rate"] * grad, state


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980), bias-corrected."""

    beta1: float = 0.9
    beta2: float = 0.999
    stabilizer: float = 1e-8

    def init(self, theta: Tensor) -> State:
        zeros = torch.zeros_like(theta)
        return {"mean": zeros, "square": zeros, "time": theta.new_zeros(())}

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        time = state["time"] + 1
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * grad
        square = self.beta2 * state["square"] + (1 - self.beta2) * grad**2
        scale = (square / (1 - self.beta2**time)).sqrt() + self.stabilizer
        update = -phi["learning_rate"] * mean / (1 - self.beta1**time) / scale
        return update, {"mean": mean, "square": square, "time": time}


BASELINES: dict[str, UpdateRule] = {"sgd": SGD(), "adam": Adam()}
