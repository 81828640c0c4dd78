"""The contracts of a penalty: a term of the meta-objective beside the loss.

Penalties add up and know nothing of each other. A *geometric* penalty sees the loss landscape at theta; an *update*
penalty sees the learned optimizer's update function at one inner step; a *parameter* penalty sees the meta-parameters
alone, and a *reparametrization* changes them on their way into the learned optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from engine.base.arguments import kind, refusal
from engine.base.flat import Loss, as_far_as_possible, grad_and_value, plain_attention, random_signs
from engine.base.loss_contract import (
    agree,
    check_loss,
    check_repeats,
    check_theta,
    first_finite,
    is_transformed,
    own_loss,
    random_state,
    value_and_grad_once,
)
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.optimizers.box_ascent import BoxAscent, ascend
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State

Randomness = Generator | Sequence[Generator]
"""Where random numbers come from: a generator for each optimizee, so that its numbers are its own; or one for all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalty:
    """What every penalty has. With weight 0 it is still computed and logged, and changes nothing, bit for bit.

    All three belong to the meta-objective, which applies them: what a member computes is R alone.
    """

    name: ClassVar[str]

    weight: float = setting(1.0, minimum=0.0, help="factor of the penalty in the meta-objective")
    start: int = setting(0, minimum=0, help="inner step from which the penalty counts")
    relative: bool = setting(False, help="divide the penalty by the loss (held constant) at the same parameters")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()  # unless it is registered by another


class GeometricPenalty(Penalty):
    """A penalty on the loss landscape at theta. A member implements `at`."""

    def value_and_grad(self, loss: Loss, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight * R, shape [], and its gradient, [P], for your own loss, theta [P] to a scalar, at theta, [P].

        For theta of shape [B, P] those of B points, [B] and [B, P]; over the loss, held constant, if `relative`; NaN
        where the loss or its gradient's norm is not finite, or the loss not positive and divided by. Both are constants
        of theta's dtype. Raises ArgumentError, a ValueError, for a theta or a loss that does not fit, and where `start`
        is not 0: here are no inner steps to count.
        """
        if torch.compiler.is_compiling():
            with plain_attention():
                return self._at(loss, theta)[:2]
        if is_transformed(theta):
            with own_loss():
                return self._at(loss, theta)[:2]
        if self.start:
            allowed = "0 outside of meta-training, which alone counts inner steps"
            raise refusal(f"{self.name}.start", allowed, str(self.start))
        loss, theta = check_loss(loss), check_theta(theta)
        points = theta if theta.dim() == 2 else theta[None]
        tried = first_finite(points)
        with own_loss():
            once, state = value_and_grad_once(loss, points[tried]), random_state(points)
            alone = self._at(loss, points[tried])
            check_repeats(loss, points[tried], once, alone[2:], state)
            penalty, slope = alone[:2] if theta.dim() == 1 else self._at_each(loss, theta, tried, alone[1])
        return penalty.detach(), slope.detach()

    def _at_each(self, loss: Loss, points: Tensor, tried: int, alone: Tensor) -> list[Tensor]:
        """What `value_and_grad` returns at points, [B, P], where its gradient at one of them, [P], is known.

        One by one where vmap gets that wrong, as it does the second derivatives of a BatchNorm by the batch.
        """
        at = partial(self._at, loss)
        outputs = as_far_as_possible(at)(points)
        if not agree(outputs[1][tried], alone):
            outputs = [torch.stack(part) for part in zip(*map(at, points), strict=True)]
        return list(outputs[:2])

    def _at(self, loss: Loss, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `value_and_grad` returns, and the loss and its gradient, at one point."""
        gradient, value = grad_and_value(loss)(theta)
        penalty, slope = self.checked_at(loss, theta, value, gradient)
        sound = value.isfinite() & gradient.norm().isfinite() & penalty.isfinite()
        divisor = torch.where(value > 0, value, torch.nan) if self.relative else 1.0
        factor = torch.where(sound, self.weight, torch.nan) / divisor
        return factor * penalty, factor * slope, value, gradient

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """R alone, [], and its gradient, [P], where the loss's value, [], and gradient, [P], at theta are known.

        This is what meta-training calls at each inner step, within vmap: it looks at no number.
        """
        if type(self).value_and_grad is GeometricPenalty.value_and_grad:
            raise NotImplementedError(f"{type(self).__name__} has no at")
        return self.value_and_grad(loss, theta)

    def checked_at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """`at`. Raises ArgumentError where a member gives something else than it should."""
        result = self.at(loss, theta, value, gradient)
        if not isinstance(result, tuple) or [getattr(part, "shape", None) for part in result] != [(), theta.shape]:
            parts = ", ".join(map(kind, result)) if isinstance(result, tuple) else kind(result)
            raise refusal(f"what {self.name} gives", f"a value [] and its gradient {list(theta.shape)}", parts)
        return result


class HessianPenalty(GeometricPenalty):
    """A geometric penalty that sees the Hessian through vectors of random signs. A member implements `along`.

    In meta-training the signs are new at every inner step and follow from its number: they are the same for every
    optimizee, process and device, and change nothing for penalties that draw random numbers. Elsewhere those of step 0.
    """

    @property
    def vectors(self) -> int:
        """How many vectors it wants."""
        raise NotImplementedError

    def signs(self, theta: Tensor, inner_step: int = 0) -> Tensor:
        """The vectors, [vectors, P], for theta, [..., P]."""
        return random_signs(self.vectors, theta, inner_step)

    def along(self, loss: Loss, theta: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        """R alone, [], and its gradient, [P], at theta, by vectors of random signs, [vectors, P]; within vmap."""
        raise NotImplementedError

    def at(self, loss: Loss, theta: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return self.along(loss, theta, self.signs(theta))


class InnerStep(NamedTuple):
    """One inner step as an update penalty sees it."""

    features: Tensor  # [B, P, F], constants
    state: State  # before the step
    update: Tensor  # [B, P], what the learned optimizer's `step` gave, with its graph to phi
    factor: Tensor | None = None  # [P] or [B, P], what it is multiplied by, see `LearnedOptimizer.update_factor`

    def scaled(self, update: Tensor) -> Tensor:
        """An update of `step`, [B, P], as theta moves by it."""
        return update if self.factor is None else update * self.factor


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdatePenalty(Penalty):
    """A penalty on the learned optimizer's update function, taken at every inner step.

    Random numbers are drawn with `normal`: then they do not depend on who else is in the meta-batch.
    """

    every_step: bool = setting(
        False, help="adds up over all inner steps, also where the loss counts at the last alone (tbptt, second_order)"
    )

    def value(self, optimizer: LearnedOptimizer, phi: Phi, step: InnerStep, randomness: Randomness) -> Tensor:
        """Return the penalty of each optimizee, shape [B], differentiable by phi."""
        raise NotImplementedError


class AscentPenalty(UpdatePenalty):
    """An update penalty on how far the update can be moved by a perturbation of its input, found by sign ascent.

    The optimizer state is held fixed, and both updates carry the gradient to phi; the perturbation is a constant. Of
    this form no graph through the truncation is needed, and kernels know its ascent.
    """

    def start_of_ascent(self, optimizer: LearnedOptimizer, features: Tensor, randomness: Randomness) -> Tensor:
        """The perturbation to start from, [B, P, F]."""
        raise NotImplementedError

    def ascent(self, optimizer: LearnedOptimizer) -> BoxAscent:
        """The box, the steps, and how many features may move."""
        raise NotImplementedError

    def change(self, update: Tensor, other: Tensor) -> Tensor:
        """The penalty, [B], of the update and of that at the perturbed input, [B, P]; differentiable by both."""
        raise NotImplementedError

    def value(self, optimizer: LearnedOptimizer, phi: Phi, step: InnerStep, randomness: Randomness) -> Tensor:
        worst = self.worst_features(optimizer, phi, step, randomness)
        return self.change(step.scaled(step.update), step.scaled(optimizer.step(phi, worst, step.state)[0]))

    def worst_features(self, optimizer: LearnedOptimizer, phi: Phi, step: InnerStep, randomness: Randomness) -> Tensor:
        """The perturbed input with the largest change of the update that the ascent finds, shape [B, P, F].

        The change is that of `step`: where coordinates do not mix, no factor moves the place of the largest one.
        """
        constant = {name: tensor.detach() for name, tensor in phi.items()}
        state = {name: tensor.detach() for name, tensor in step.state.items()}
        center, clean = step.features.detach(), step.update.detach()
        start = self.start_of_ascent(optimizer, center, randomness)
        return ascend(optimizer, constant, center, state, clean, start, self.ascent(optimizer))


def is_plain_ascent(penalty: UpdatePenalty) -> bool:
    """Whether a penalty is all that `AscentPenalty` says: no subclass computes its value in another way."""
    kind = type(penalty)
    return (
        issubclass(kind, AscentPenalty)
        and kind.value is AscentPenalty.value
        and kind.worst_features is AscentPenalty.worst_features
    )


class ParameterPenalty(Penalty):
    """A penalty on the meta-parameters alone, taken once for each meta-step."""

    def value(self, phi: Phi) -> Tensor:
        """Return the penalty, shape [], differentiable by phi."""
        raise NotImplementedError


class Reparametrization(Penalty):
    """Replaces the meta-parameters on their way into the learned optimizer; what is saved for use is the result."""

    def init(self, phi: Phi) -> dict[str, Tensor]:
        """What persists between meta-steps."""
        return {}

    def apply(self, phi: Phi, memory: dict[str, Tensor]) -> tuple[Phi, dict[str, Tensor], Tensor]:
        """Return the meta-parameters to use, with their graph to phi, the new memory, and a figure to log, shape []."""
        raise NotImplementedError


PENALTIES = Registry[Penalty]("penalty", "engine.penalties", Penalty)

get = PENALTIES.create
"""A penalty by name, its settings checked: `get("sam", rho=0.05)`. Raises SettingsError that names the field."""


def positions(randomness: Randomness) -> list[Tensor]:
    """Where the generators are, for `go_to`."""
    return [generator.get_state() for generator in _generators(randomness)]


def go_to(randomness: Randomness, states: Sequence[Tensor]) -> None:
    """Put the generators where they were, so that the same numbers come again."""
    for generator, state in zip(_generators(randomness), states, strict=True):
        generator.set_state(state)


def _generators(randomness: Randomness) -> Sequence[Generator]:
    return [randomness] if isinstance(randomness, Generator) else randomness


def normal(like: Tensor, randomness: Randomness) -> Tensor:
    """Standard normal numbers of the shape, [B, ...], and kind of `like`."""
    if isinstance(randomness, Generator):
        return torch.randn(like.shape, generator=randomness, dtype=like.dtype, device=like.device)
    numbers = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    for row, generator in zip(numbers, randomness, strict=True):
        row.normal_(generator=generator)
    return numbers
