"""Hand-designed optimizers behind the learned optimizer's contract, so that one evaluation serves both.

A baseline is a rule, what turns a direction into an update, and its gradients: that of the loss, or SAM's, GSAM's or
GAM's direction, which take several passes. Their "meta-parameters" phi are columns of shape [B, 1] ("learning_rate",
"rho", "alpha"): every optimizee may have its own, so a whole grid is tried in one batched unroll.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.base.directions import gam_direction, gsam_direction
from engine.base.flat import Batch, BatchLoss, gradients_and_losses, perturbation
from engine.optimizers.learned.base import Phi, State, StepInfo

LEARNING_RATES = tuple(10 ** (-4 + k / 2) for k in range(9))
"""The grid of Xiong & Hsieh: half a decade apart, 1e-4 to 1."""
RHOS = (0.005, 0.01, 0.05, 0.1, 0.2)
ALPHAS = (0.1, 0.4, 0.7)
MOMENTUM = 0.9

Gradients = Callable[[Phi, BatchLoss, Tensor, Batch], tuple[Tensor, Tensor]]
"""phi, loss, theta [B, P] and a batch to the direction to descend, [B, P], and the loss at theta, [B]."""


class UpdateRule(Protocol):
    """How a hand-designed optimizer takes an inner step. Shapes as in `engine.optimizers.learned.base`."""

    def init(self, theta: Tensor) -> State: ...

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]: ...


@dataclass(frozen=True)
class SGD:
    """u = -lr v,  v = momentum v + g; as torch, without dampening."""

    momentum: float = 0.0

    def init(self, theta: Tensor) -> State:
        return {"velocity": torch.zeros_like(theta)} if self.momentum else {}

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.momentum:
            return -phi["learning_rate"] * grad, state
        velocity = self.momentum * state["velocity"] + grad
        return -phi["learning_rate"] * velocity, {"velocity": velocity}


@dataclass(frozen=True)
class NormalizedSGD(SGD):
    """SGD on g / sqrt(mean g²), zero where g is zero: normalised gradient descent with momentum.

    The root mean square, not ‖g‖₂, because that is what `simple` shows its network, so this is `simple` without the
    learning; and because the learning rate is then the size of one coordinate's step, as Adam's, and the same grid
    fits every P. Each gradient is normalised before it enters the velocity.
    """

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        return super().update(phi, theta, perturbation(grad, grad.shape[-1] ** 0.5), state)


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980), bias-corrected.

    amsgrad: divide by the largest second moment so far (Reddi et al. 2018, arXiv:1904.09237), as torch: the maximum
    is taken before the bias correction.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    stabilizer: float = 1e-8
    amsgrad: bool = False

    def init(self, theta: Tensor) -> State:
        zeros = torch.zeros_like(theta)
        largest = {"largest": zeros} if self.amsgrad else {}
        return {"mean": zeros, "square": zeros, **largest, "time": theta.new_zeros(())}

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        time = state["time"] + 1
        mean = self.beta1 * state["mean"] + (1 - self.beta1) * grad
        square = self.beta2 * state["square"] + (1 - self.beta2) * grad**2
        largest = {"largest": torch.maximum(state["largest"], square)} if self.amsgrad else {}
        scale = (largest.get("largest", square) / (1 - self.beta2**time)).sqrt() + self.stabilizer
        update = -phi["learning_rate"] * mean / (1 - self.beta1**time) / scale
        return update, {"mean": mean, "square": square, **largest, "time": time}


@dataclass(frozen=True)
class RMSProp:
    """u = -lr g / (sqrt(nu) + 1e-8),  nu = decay nu + (1 - decay) g² (Tieleman & Hinton 2012), not centred."""

    decay: float = 0.99
    stabilizer: float = 1e-8

    def init(self, theta: Tensor) -> State:
        return {"square": torch.zeros_like(theta)}

    def update(self, phi: Phi, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, State]:
        square = self.decay * state["square"] + (1 - self.decay) * grad**2
        return -phi["learning_rate"] * grad / (square.sqrt() + self.stabilizer), {"square": square}


def plain_gradients(phi: Phi, loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradient of the loss, and the loss: what a learned optimizer is given."""
    return gradients_and_losses(loss, theta, batch)


def sam_gradients(phi: Phi, loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradient one step of length rho up the gradient (Foret et al. 2021, arXiv:2010.01412); two passes."""
    gradient, value = gradients_and_losses(loss, theta, batch)
    return gradients_and_losses(loss, theta + perturbation(gradient, phi["rho"]), batch)[0], value


def gsam_gradients(phi: Phi, loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """GSAM's direction with a constant rho, as the learning rate is constant; two passes."""
    gradient, value = gradients_and_losses(loss, theta, batch)
    worst, _ = gradients_and_losses(loss, theta + perturbation(gradient, phi["rho"]), batch)
    return gsam_direction(gradient, worst, phi["alpha"]), value


@dataclass(frozen=True)
class GAMGradients:
    """The released accelerated direction of GAM with its CIFAR-10 constants; four passes."""

    gradient_rho: float = 0.03
    beta0: float = 0.1
    beta1: float = 0.1
    gamma: float = 0.05

    def __call__(self, phi: Phi, loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        gradient, value = gradients_and_losses(loss, theta, batch)
        direction, _ = gam_direction(
            lambda point: gradients_and_losses(loss, point, batch)[0], theta, gradient, phi["rho"], self
        )
        return direction, value


@dataclass(frozen=True, eq=False)
class Baseline:
    """A hand-designed optimizer: how it steps, what an inner step costs, and what is tuned for every task.

    `passes_per_step`: forward and backward passes, at `theta` or elsewhere. `grid`: the values to try, and `default`
    the value until it is tuned, of every column of phi; tuned in the order of the grid.
    """

    name: str
    rule: UpdateRule
    gradients: Gradients
    passes_per_step: int
    grid: dict[str, tuple[float, ...]]
    default: dict[str, float]

    def steps(self, phi: Phi, theta: Tensor) -> BaselineSteps:
        """The optimizer under way, from theta, [B, P], on."""
        return BaselineSteps(self.rule, phi, self.rule.init(theta))


class BaselineSteps:
    """An update rule and its state: called as a frozen learned optimizer is."""

    def __init__(self, rule: UpdateRule, phi: Phi, state: State) -> None:
        self._rule = rule
        self._phi = phi
        self._state = state

    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        update, self._state = self._rule.update(self._phi, theta, grad, self._state)
        return update

    def state(self) -> State:
        return self._state


_PLAIN: tuple[tuple[str, UpdateRule, float], ...] = (  # name, rule, usual learning rate
    ("sgd", SGD(), 0.1),
    ("sgdm", SGD(MOMENTUM), 0.01),
    ("adam", Adam(), 1e-3),
    ("amsgrad", Adam(amsgrad=True), 1e-3),
    ("rmsprop", RMSProp(), 1e-3),
    ("ngdm", NormalizedSGD(MOMENTUM), 1e-3),
)
_SHARPNESS_AWARE: tuple[tuple[str, Gradients, int, dict[str, float]], ...] = (  # ..., passes, settings
    ("sam", sam_gradients, 2, {"rho": 0.05}),
    ("gsam", gsam_gradients, 2, {"rho": 0.05, "alpha": 0.4}),
    ("gam", GAMGradients(), 4, {"rho": 0.05}),
)
_AROUND = ("sgdm", "adam")


def _baselines() -> dict[str, Baseline]:
    grids = {"learning_rate": LEARNING_RATES, "rho": RHOS, "alpha": ALPHAS}
    members = [
        Baseline(name, rule, plain_gradients, 1, {"learning_rate": LEARNING_RATES}, {"learning_rate": rate})
        for name, rule, rate in _PLAIN
    ]
    for base in [member for member in members if member.name in _AROUND]:
        for method, gradients, passes, settings in _SHARPNESS_AWARE:
            default = {**base.default, **settings}
            grid = {key: grids[key] for key in default}
            members.append(Baseline(f"{method}-{base.name}", base.rule, gradients, passes, grid, default))
    return {member.name: member for member in members}


BASELINES: dict[str, Baseline] = _baselines()
"""sgd, sgdm, adam, amsgrad, rmsprop, ngdm, and sam-, gsam- and gam- around sgdm and adam."""
