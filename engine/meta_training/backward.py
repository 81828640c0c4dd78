"""Backward: how the learned optimizer takes the inner steps of a truncation, and how slopes come back to phi.

`AutogradBackward` keeps autograd's graph of the learned optimizer along the truncation: the reference, and the only one
for update penalties that want a graph. `TapeBackward` keeps a tape (`engine.kernels`): no graph at all. For the second
order there is `engine.meta_training.second_order`.

Shape letters: B optimizees, P parameters, T inner steps, F input features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.base.flat import Batch
from engine.kernels.tape import SideInput, Tape
from engine.optimizers.learned.base import START, LearnedOptimizer, Phi, State
from engine.penalties.base import AscentPenalty, InnerStep, Randomness, UpdatePenalty


class StepStart(NamedTuple):
    """Where an inner step starts from: constants."""

    theta: Tensor  # [B, P]; with its graph where the learned optimizer differentiates it
    grad: Tensor  # [B, P]
    loss: Tensor  # [B]
    resting: Tensor  # [B], the optimizees that have diverged
    number: int  # of the inner step in the unroll
    batch: Batch | None  # that the gradient is of; None where it comes from the truncation before


class StepResult(NamedTuple):
    """What an inner step comes to."""

    moved: Tensor  # [B, P], to add to theta
    state: State  # after it
    step: InnerStep


Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""`LearnedOptimizer.step` with meta-parameters: features and the observed state to the update and the next state."""

Take = Callable[[Step, StepStart, State], StepResult]
"""An inner step by some `Step`; differentiable by everything that goes in."""


class Slopes(NamedTuple):
    """An update penalty at one inner step: slopes of its value by the update and by the update at another input."""

    inner_step: int  # counted from the truncation's first
    slope: Tensor  # [B, P]
    features: Tensor  # [B, P, F], the other input
    other_slope: Tensor  # [B, P]


Source = Any
"""What is pulled back of an update penalty, as its `Backward` notes it: a value with its graph, a `Slopes`, ..."""


class PenaltyEntry(NamedTuple):
    """What an update penalty came to at one inner step, and what of it counts."""

    source: Source
    cotangent: Tensor  # [B]


class Backward:
    """One truncation, from its first inner step to its last."""

    def advance(self, point: StepStart, state: State) -> StepResult:
        """An inner step."""
        raise NotImplementedError

    def penalty(self, penalty: UpdatePenalty, step: InnerStep, randomness: Randomness) -> tuple[Tensor, Source]:
        """The penalty's values, [B], at the last step, and what is pulled back of them."""
        raise NotImplementedError

    def pull_back(self, thetas: list[Tensor], cotangents: list[Tensor], moves: list[Tensor]) -> Phi:
        """The gradient by phi of sum_t <cotangents_t, thetas_t>; moves_t, [B, P], is d theta_t / d update_t.

        Learned initial parameters among phi get theirs where the unroll begins with this truncation.
        """
        raise NotImplementedError

    def pull_back_entries(self, entries: Sequence[PenaltyEntry]) -> Phi:
        """The gradient by phi of an update penalty's entries."""
        raise NotImplementedError

    def state(self, state: State) -> State:
        """The optimizer state to carry on with, constants."""
        return {name: tensor.detach() for name, tensor in state.items()}

    def close(self) -> None:
        """The truncation is done with."""


class AutogradBackward(Backward):
    """Plain autograd."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, take: Take) -> None:
        self.optimizer = optimizer
        self.phi = phi
        self.take = take

    def advance(self, point: StepStart, state: State) -> StepResult:
        return self.take(partial(self.optimizer.step, self.phi), point, state)

    def penalty(self, penalty: UpdatePenalty, step: InnerStep, randomness: Randomness) -> tuple[Tensor, Tensor]:
        value = penalty.value(self.optimizer, self.phi, as_observed(self.optimizer, self.phi, step), randomness)
        return value.detach(), value

    def pull_back(self, thetas: list[Tensor], cotangents: list[Tensor], moves: list[Tensor]) -> Phi:
        return pull_back(self.phi, thetas, cotangents)

    def pull_back_entries(self, entries: Sequence[PenaltyEntry]) -> Phi:
        values = [torch.where(entry.cotangent != 0, entry.source, 0.0) for entry in entries]
        return pull_back(self.phi, values, [entry.cotangent for entry in entries])


class TapeBackward(Backward):
    """A tape. Needs the first order, and update penalties that are `AscentPenalty`."""

    def __init__(self, optimizer: LearnedOptimizer, tape: Tape, take: Take, start: Tensor | None, begins: bool) -> None:
        """`start`: learned initial parameters, [P], at which an unroll `begins` with this truncation or did before."""
        self.optimizer = optimizer
        self.tape = tape
        self.take = take
        self.start, self.begins = start, begins
        self._taken = 0

    def advance(self, point: StepStart, state: State) -> StepResult:
        return self.take(self._step, point, state)

    def _step(self, features: Tensor, observed: State) -> tuple[Tensor, State]:
        self._taken += 1
        return self.tape.step(features, observed), observed

    def penalty(self, penalty: UpdatePenalty, step: InnerStep, randomness: Randomness) -> tuple[Tensor, Slopes]:
        assert isinstance(penalty, AscentPenalty)
        start = penalty.start_of_ascent(self.optimizer, step.features, randomness)
        features, other = self.tape.ascend(start, penalty.ascent(self.optimizer))
        update, other = step.update.clone().requires_grad_(), other.requires_grad_()
        with torch.enable_grad():
            value = penalty.change(step.scaled(update), step.scaled(other))
        slope, other_slope = torch.autograd.grad(value.sum(), (update, other))
        return value.detach(), Slopes(self._taken - 1, slope, features, other_slope)

    def pull_back(self, thetas: list[Tensor], cotangents: list[Tensor], moves: list[Tensor]) -> Phi:
        """theta_t = theta_0 + the moved updates before it, so an update's slope is the sum of all later cotangents."""
        slopes, later = [], torch.zeros_like(cotangents[0])
        for cotangent, move in zip(reversed(cotangents), reversed(moves), strict=True):
            later = later + cotangent
            slopes.append(later * move)
        return self._with_start(self.tape.pull_back(slopes[::-1]), later)

    def _with_start(self, gradient: Phi, later: Tensor) -> Phi:
        """The gradient by phi with that by the learned initial parameters; `later`, [B, P], is the slope of theta_0."""
        if self.start is None:
            return gradient
        return {**gradient, START: later.sum(0) if self.begins else torch.zeros_like(self.start)}

    def pull_back_entries(self, entries: Sequence[PenaltyEntry]) -> Phi:
        zeros = torch.zeros_like(entries[0].source.slope)
        slopes: list[Tensor] = [zeros] * self._taken
        features: list[Tensor | None] = [None] * self._taken
        other_slopes: list[Tensor | None] = [None] * self._taken
        for entry in entries:
            contrast, cotangent = entry.source, entry.cotangent[:, None]
            at, idle = contrast.inner_step, cotangent == 0  # a slope that does not count may be anything
            features[at] = contrast.features.masked_fill(idle[..., None], 0.0)
            slopes[at] = (cotangent * contrast.slope).masked_fill(idle, 0.0)
            other_slopes[at] = (cotangent * contrast.other_slope).masked_fill(idle, 0.0)
        return self._with_start(self.tape.pull_back(slopes, SideInput(features, other_slopes)), zeros)

    def state(self, state: State) -> State:
        return super().state(state) | self.tape.state()

    def close(self) -> None:
        self.tape.close()


def as_observed(optimizer: LearnedOptimizer, phi: Phi, step: InnerStep) -> InnerStep:
    """A step as update penalties see it, which hold constant what the learned optimizer has observed, theta as well."""
    if not optimizer.differentiates_theta:
        return step
    features, held = step.features.detach(), optimizer.theta_in_state
    state = {name: tensor.detach() if name in held else tensor for name, tensor in step.state.items()}
    return step._replace(features=features, state=state, update=optimizer.step(phi, features, state)[0])


def pull_back(phi: Phi, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Phi:
    """The gradient by phi of the outputs' inner product with the cotangents; the graph stays for another one."""
    gradients = torch.autograd.grad(outputs, list(phi.values()), cotangents, retain_graph=True, materialize_grads=True)
    return dict(zip(phi, gradients, strict=True))


def known(mask: Tensor) -> Tensor | None:
    """The mask; None where it is known to mask nothing: on the CPU, where to look costs no wait."""
    return None if mask.device.type == "cpu" and not mask.any() else mask


def blank(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """The tensor, [B, ...] or [M, B, ...], with zeros where the mask, [B] or [M, B], is true."""
    return (
        tensor if mask is None else tensor.masked_fill(mask.view(*mask.shape, *(1,) * (tensor.dim() - mask.dim())), 0.0)
    )


def sound(gradient: Tensor, loss: Tensor) -> Tensor:
    """Whether gradients, [..., P], and losses, [...], are finite: [...]."""
    nothing = (gradient.detach() * 0.0).sum(-1)  # NaN if one of them is not; several times faster than isfinite
    return (nothing + loss.detach()).isfinite()
