"""Unroll: one truncation of inner steps, and its meta-gradient by cotangent injection.

Every term of the meta-objective that depends on the optimizee only through theta_t is a value and a gradient g_t at
theta_t. With g_t held constant, sum_t <g_t, theta_t(phi)> has the meta-gradient of the objective: so only the learned
optimizer is differentiated, with the gradients g_t as the cotangents of theta_t (`engine.meta_training.backward`). In
the second-order mode they go back through the optimizee's gradients as well (`engine.meta_training.second_order`).

Shapes: B optimizees, P parameters, T inner steps of the truncation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine import kernels
from engine.base.flat import Batch, gradients_and_losses, prefixed, under
from engine.meta_training.backward import (
    AutogradBackward,
    Backward,
    Entry,
    Move,
    Point,
    Step,
    Take,
    TapeBackward,
    blank,
    known,
)
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import GEOMETRIC, LOSS, PartialGradient
from engine.meta_training.penalty_terms import PenaltyTerms, divisor, geometric_penalty_at, pair, usable
from engine.meta_training.second_order import SecondOrderBackward
from engine.optimizers.learned.base import START, Phi, State, StepInfo, without_start
from engine.penalties.base import (
    InnerStep,
    Penalty,
    Randomness,
    is_plain_ascent,
)
from engine.presets.meta_settings import MetaSettings
from engine.presets.objective_settings import AT_THE_END, ObjectiveSettings
from engine.tasks.base import Batches


@dataclass(frozen=True)
class UnrollState:
    """What goes from one truncation to the next: constants."""

    theta: Tensor  # [B, P]
    state: State
    grad: Tensor  # [B, P], at theta, on the batch that feeds the next inner step (loss_batch = next)
    loss: Tensor  # [B], likewise
    first_loss: Tensor  # [B], infinite until it is known
    alive: Tensor  # [B], False from where the unroll diverged
    inner_step: int = 0
    truncations: int = 0
    scaling: Tensor | None = None  # [B, P], random coordinate scaling
    horizon: int | None = None  # inner steps that the unroll is to have, where that is known
    batch: Batch | None = None  # that grad is of, where the unroll has just begun

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is tensors, by name, for a checkpoint."""
        names = ("theta", "grad", "loss", "first_loss", "alive")
        tensors = {name: getattr(self, name) for name in names} | prefixed("state", self.state)
        return tensors if self.scaling is None else tensors | {"scaling": self.scaling}

    def facts(self) -> dict[str, Any]:
        """Nothing else needs to be kept."""
        return {}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> UnrollState:
        """From `tensors` and the rest as `facts`. Raises KeyError where something is missing."""
        return cls(
            theta=tensors["theta"],
            state=under("state", tensors),
            grad=tensors["grad"],
            loss=tensors.get("loss", tensors["first_loss"]),  # checkpoints of before it was kept: nobody used it
            first_loss=tensors["first_loss"],
            alive=tensors["alive"],
            inner_step=facts["inner_step"],
            truncations=facts["truncations"],
            scaling=tensors.get("scaling"),
            horizon=facts.get("horizon"),
        )


class MetaGradient(NamedTuple):
    """The meta-gradient and what the truncation showed. Figures are tensors: nothing waits for the device."""

    gradient: Phi
    figures: dict[str, Tensor]
    losses: Tensor  # [T, B], not above the divergence cap


def weights(scheme: str, steps: int, *, decay: float = 0.9, first: int = 0) -> list[float]:
    """The factors w_j of the losses along a truncation of `steps` inner steps (docs/method.md#meta-objective).

    uniform 1; linear j / sum(1..T); decayed decay^(T - j); final 1 for the last; xh_code: for all of the truncation the
    number of its `first` inner step, k T in truncation k.
    """
    places = range(1, steps + 1)
    if scheme == "uniform":
        return [1.0] * steps
    if scheme == "linear":
        return [2.0 * place / (steps * (steps + 1)) for place in places]
    if scheme == "decayed":
        return [decay ** (steps - place) for place in places]
    if scheme == "final":
        return [float(place == steps) for place in places]
    if scheme == "xh_code":
        return [float(first)] * steps
    raise ValueError(f"unknown weights {scheme!r}")


def loss_factors(
    settings: MetaSettings, objective: ObjectiveSettings, first: int, steps: int, horizon: int
) -> list[float]:
    """The weights of the losses along the `steps` inner steps from `first` on of an unroll of `horizon`."""
    if objective.loss in AT_THE_END:
        return [0.0] * (steps - 1) + [float(first + steps == horizon)]
    return weights(settings.weights, steps, decay=settings.weights_decay, first=first)


def begin(
    objective: Objective,
    theta: Tensor,
    batch: Batch | None = None,
    *,
    scaling: Tensor | None = None,
    horizon: int | None = None,
) -> UnrollState:
    """The carry at inner step 0 for parameters [B, P]; `batch` gives the first gradient (loss_batch = next)."""
    theta = theta.detach()
    carry = UnrollState(
        theta=theta,
        state=objective.optimizer.init(theta if scaling is None else theta / scaling, objective.layout),
        grad=torch.zeros_like(theta),
        loss=torch.full_like(theta[:, 0], torch.inf),
        first_loss=torch.full_like(theta[:, 0], torch.inf),
        alive=torch.ones_like(theta[:, 0], dtype=torch.bool),
        scaling=scaling,
        horizon=horizon,
    )
    if batch is None:
        return carry
    grad, loss = gradients_and_losses(objective.loss, theta, batch)
    return replace(carry, grad=grad, loss=loss, first_loss=loss, alive=_sound(grad, loss), batch=batch)


def truncation(
    objective: Objective,
    phi: Phi,
    carry: UnrollState,
    batches: Batches,
    factors: Sequence[float],
    randomness: Randomness,
    *,
    scoring: Batches | None = None,
    final: Batches | None = None,
) -> tuple[MetaGradient, UnrollState]:
    """Take len(factors) inner steps from `carry`; return the meta-gradient, averaged over the optimizees, and the
    next carry.

    `batches` feed the inner steps, `scoring` are the batches of loss_batch = validation; `final` those that the last
    loss is measured on instead, the mean over them. phi's tensors must require gradients. An optimizee's terms count
    until it diverges (loss or gradient not finite, or loss above the cap), that inner step included if all is finite;
    then it rests. A penalty that is not finite is left out and counted in `dropped_terms`.
    """
    partial, losses, carry = run_truncation(
        objective, phi, carry, batches, factors, randomness, scoring=scoring, final=final
    )
    return MetaGradient(*partial.meta_gradient(objective, phi, carry.inner_step - 1), losses), carry


def run_truncation(
    objective: Objective,
    phi: Phi,
    carry: UnrollState,
    batches: Batches,
    factors: Sequence[float],
    randomness: Randomness,
    *,
    scoring: Batches | None = None,
    final: Batches | None = None,
) -> tuple[PartialGradient, Tensor, UnrollState]:
    """`truncation` for a part of the optimizees: what adds up over all of them, and their losses, [T, B]."""
    under_way = Truncation(objective, phi, carry, randomness, len(factors))
    for index, factor in enumerate(factors):
        fresh = final if index == len(factors) - 1 else None
        under_way.inner_step(batches[index], scoring[index] if scoring is not None else None, factor, fresh)
    losses = torch.stack(under_way.losses)
    result = under_way.partial(losses), losses, under_way.carry_on()
    under_way.backward.close()
    del under_way.backward  # they refer to each other: else the graph would wait for the garbage collector
    return result


def _backward(objective: Objective, phi: Phi, carry: UnrollState, steps: int, take: Take) -> Backward:
    """A tape where one is of use, and enough; else autograd's graph; for the second order neither."""
    if objective.second_order:
        return SecondOrderBackward(objective, phi, carry.state, steps, take, begins=carry.inner_step == 0)
    if all(map(is_plain_ascent, objective.update.values())) and not objective.optimizer.differentiates_theta:
        ascends = bool(objective.update)
        tape = kernels.tape(objective.optimizer, without_start(phi), carry.state, carry.theta, steps, ascends=ascends)
        if tape is not None:
            return TapeBackward(objective.optimizer, tape, take, phi.get(START), begins=carry.inner_step == 0)
    return AutogradBackward(objective.optimizer, phi, take)


class Truncation:
    """One truncation under way."""

    def __init__(self, objective: Objective, phi: Phi, carry: UnrollState, randomness: Randomness, steps: int) -> None:
        self.objective = objective
        self.phi = phi
        self.backward = _backward(objective, phi, carry, steps, self._take)
        self.randomness = randomness
        self.penalty_at = {
            name: geometric_penalty_at(penalty, objective.loss) for name, penalty in objective.geometric.items()
        }
        self.start = carry
        self.theta, self.state, self.grad, self.loss = carry.theta, carry.state, carry.grad, carry.loss
        if START in phi and carry.inner_step == 0 and not objective.second_order:
            self.theta = phi[START].expand_as(carry.theta)  # the same numbers, with their graph
        self.batch = carry.batch  # that the gradient is of
        self.first_loss, self.alive = carry.first_loss, carry.alive
        self.factors: list[float] = []
        self.thetas: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.update_norms: list[Tensor] = []
        self.moving: list[Tensor] = []  # [B], whether the optimizee had not diverged
        self.moves: list[Tensor] = []  # [B, P] or [B, 1], d theta / d update of the network
        self.loss_cotangents: list[Tensor] = []
        self.penalty_cotangents: list[Tensor] = []  # of all geometric penalties together
        self.dropped = torch.zeros_like(carry.first_loss)
        self.counted = torch.zeros_like(carry.first_loss)
        self.penalty_terms = {name: PenaltyTerms() for name in (*objective.geometric, *objective.update)}

    def inner_step(self, batch: Batch, scoring: Batch | None, factor: float, final: Batches | None = None) -> None:
        objective = self.objective
        if objective.optimizer.gives_start and self.start.inner_step + len(self.factors) == 0:
            self._begin(self.batch if objective.loss_batch == "next" else batch)
        if objective.loss_batch != "next":
            self.grad, self.loss = self._slopes(batch)
            self.batch = batch
            self.alive = self.alive & _sound(self.grad, self.loss)  # before anything broken gets into the state
            if self.start.inner_step + len(self.factors) == 0:
                self.first_loss = self.loss
        step = self._update()
        scored_on = scoring if objective.loss_batch == "validation" else batch
        feeds = objective.loss_batch == "next"
        gradient, loss = self._slopes(batch) if feeds else gradients_and_losses(objective.loss, self.theta, scored_on)
        if feeds:
            self.grad, self.loss, self.batch = gradient, loss, batch
        self._score(gradient, loss, scored_on, factor, step, final)

    def _slopes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradient, [B, P], and the loss, [B], that feed the next update."""
        if isinstance(self.backward, SecondOrderBackward):
            return self.backward.slopes(self.theta, batch)
        return gradients_and_losses(self.objective.loss, self.theta, batch)

    def _begin(self, batch: Batch) -> None:
        """Go to where the learned optimizer starts from, with its graph to phi."""
        objective, layout = self.objective, self.objective.layout
        assert layout is not None
        self.theta = objective.optimizer.start(without_start(self.phi), self.start.theta, batch, layout)
        self.state = objective.optimizer.init(self.theta.detach(), layout)
        if objective.loss_batch == "next":
            self.grad, self.loss = gradients_and_losses(objective.loss, self.theta, batch)
            self.first_loss, self.alive = self.loss, _sound(self.grad, self.loss)

    def _update(self) -> InnerStep:
        """Move theta by one update of the learned optimizer; a diverged optimizee rests."""
        number = self.start.inner_step + len(self.factors)
        theta = self.theta if self.objective.optimizer.differentiates_theta else self.theta.detach()
        point = Point(theta, self.grad, self.loss, ~self.alive, number, self.batch)
        moved, self.state, step = self.backward.advance(point, self.state)
        self.theta = self.theta + moved
        self.update_norms.append(moved.detach().norm(dim=-1))
        self.moving.append(self.alive)
        self.moves.append(_product(self.alive[:, None], step.factor, self.start.scaling))
        return step

    def _take(self, network_step: Step, point: Point, state: State) -> Move:
        optimizer, layout, scaling = self.objective.optimizer, self.objective.layout, self.start.scaling
        resting = known(point.resting)
        grad, theta = blank(point.grad, resting), point.theta
        if scaling is not None:  # the learned optimizer trains z where theta = scaling * z
            grad, theta = grad * scaling, theta / scaling
        info = StepInfo(blank(point.loss, resting), point.number, self.start.horizon, self.objective.task)
        features, observed = optimizer.observe(theta, grad, state, layout, info)
        features = blank(features, resting)
        factor = optimizer.update_factor(theta, layout, grad)
        update, state = network_step(features, observed)
        moved = blank(_product(update, factor, scaling), resting)
        return Move(moved, state, InnerStep(features, observed, update, factor))

    def _score(
        self, gradient: Tensor, loss: Tensor, batch: Batch, factor: float, step: InnerStep, final: Batches | None
    ) -> None:
        """Book this inner step's terms: cotangents for the new theta, weighted values of the update penalties."""
        optimizees = len(loss)
        counting_gradient, counting_loss = (gradient, loss) if final is None else self._on_fresh_batches(final)
        sound = _sound(gradient, loss) & _sound(counting_gradient, counting_loss)
        counts = self.alive & sound
        self.counted = self.counted + counts
        self.thetas.append(self.theta)
        self.loss_cotangents.append(blank(factor / optimizees * counting_gradient, known(~counts)))
        if factor and self.objective.geometric:
            slopes = self._geometric_slopes(gradient, loss, batch, factor, counts)
            self.penalty_cotangents.append(factor / optimizees * slopes)
        elif self.objective.geometric:
            self.penalty_cotangents.append(torch.zeros_like(gradient))
        self._book_update_penalties(loss, step, factor, counts)
        self.factors.append(factor)
        cap = self.objective.divergence_cap * self.first_loss
        self.losses.append(torch.where(self.alive & (counting_loss <= cap), counting_loss, cap))
        self.alive = counts & (loss <= cap)

    def _on_fresh_batches(self, batches: Batches) -> tuple[Tensor, Tensor]:
        """The mean gradient, [B, P], and loss, [B], over batches at theta."""
        of_each = [
            gradients_and_losses(self.objective.loss, self.theta, batches[index]) for index in range(len(batches))
        ]
        gradients, losses = zip(*of_each, strict=True)
        return torch.stack(gradients).mean(0), torch.stack(losses).mean(0)

    def _geometric_slopes(self, gradient: Tensor, loss: Tensor, batch: Batch, factor: float, counts: Tensor) -> Tensor:
        """The weighted sum of the geometric penalties' gradients at theta, [B, P]."""
        slopes = torch.zeros_like(gradient)
        for name, penalty in self.objective.geometric.items():
            if not self._started(penalty):
                continue
            number = self.start.inner_step + len(self.factors)
            value, slope = self.penalty_at[name](self.theta.detach(), batch, loss, gradient, number)
            taken = usable(penalty, loss, counts & _sound(slope, value))
            divided_by = divisor(penalty, loss, taken)
            weight = torch.full_like(loss, penalty.weight) / divided_by
            weighted = (weight[:, None] * slope.detach()).masked_fill(~taken[:, None], 0.0)
            self.penalty_terms[name].add_geometric(value.detach() / divided_by, taken, weighted, gradient, factor)
            if penalty.weight:
                slopes = slopes + weighted
                self.dropped = self.dropped + (counts & ~taken)
        return slopes

    def _book_update_penalties(self, loss: Tensor, step: InnerStep, factor: float, counts: Tensor) -> None:
        for name, penalty in self.objective.update.items():
            share = (1.0 if penalty.every_step else factor) / len(loss)
            if not share or not self._started(penalty):
                continue
            value, source = self.backward.penalty(penalty, step, self.randomness)
            taken = usable(penalty, loss, counts & value.isfinite())
            divided_by = divisor(penalty, loss, taken)
            entry = Entry(source, share * penalty.weight * taken.to(value.dtype) / divided_by)
            self.penalty_terms[name].add_update(value / divided_by, taken, entry)
            if penalty.weight:
                self.dropped = self.dropped + (counts & ~taken)

    def _started(self, penalty: Penalty) -> bool:
        return self.start.inner_step + len(self.factors) >= penalty.start

    def partial(self, losses: Tensor) -> PartialGradient:
        """Pull the cotangents back to phi, and add up the figures of the truncation, losses [T, B] among them."""
        moving = torch.stack(self.moving)  # [T, B]
        update_norms = torch.where(moving, torch.stack(self.update_norms), 0.0)
        sums = {
            "meta_loss": self._meta_loss(losses),
            "update_norm": pair(update_norms.sum(), moving.sum()),
            "dropped_terms": pair(self.dropped.sum(), 0),
            "counted_terms": pair(self.counted.sum(), 0),
        }
        for name, penalty_terms in self.penalty_terms.items():
            sums |= penalty_terms.sums(name)
        return PartialGradient(len(self.first_loss), self._gradients(), sums)

    def _gradients(self) -> dict[str, Phi]:
        """The meta-gradient in parts: the loss by itself where shares are measured against it."""
        pressed = any(penalty.weight for penalty in self.objective.geometric.values())
        last = self.start.inner_step + len(self.factors) - 1
        entries = {
            name: self.penalty_terms[name].entries
            for name, penalty in self.objective.update.items()
            if penalty.weight and self.penalty_terms[name].entries
        }
        parameter = self.objective.parameter.values()
        if entries or any(penalty.weight and last >= penalty.start for penalty in parameter):
            gradients = {LOSS: self._pull_back(self.loss_cotangents)}
            gradients |= {name: self.backward.pull_back_entries(entries[name]) for name in entries}
            return gradients | ({GEOMETRIC: self._pull_back(self.penalty_cotangents)} if pressed else {})
        both = zip(self.loss_cotangents, self.penalty_cotangents, strict=True) if pressed else ()
        return {LOSS: self._pull_back([a + b for a, b in both] or self.loss_cotangents)}

    def _pull_back(self, cotangents: list[Tensor]) -> Phi:
        """The gradient by phi of what depends on it through theta."""
        return self.backward.pull_back(self.thetas, cotangents, self.moves)

    def _meta_loss(self, losses: Tensor) -> Tensor:
        """The sum of losses and weights whose ratio is the mean loss over the truncation and the optimizees.

        The weights are the truncation's unless they are all zero.
        An optimizee whose very first loss is not finite has no loss to speak of and is left out.
        """
        factors = self.factors if any(self.factors) else [1.0] * len(losses)
        weighted = torch.stack([factor * loss for factor, loss in zip(factors, losses, strict=True)]).sum(0)
        began = self.first_loss.isfinite()
        number = began.to(losses.dtype).sum()  # a count times a float would be rounded to float32
        return pair(torch.where(began, weighted, 0.0).sum(), number * math.fsum(factors))

    def carry_on(self) -> UnrollState:
        return UnrollState(
            theta=self.theta.detach(),
            state=self.backward.state(self.state),
            grad=self.grad.detach(),
            loss=self.loss.detach(),
            first_loss=self.first_loss,
            alive=self.alive,
            inner_step=self.start.inner_step + len(self.factors),
            truncations=self.start.truncations + 1,
            scaling=self.start.scaling,
            horizon=self.start.horizon,
        )


def _sound(gradient: Tensor, loss: Tensor) -> Tensor:
    """Whether gradient, [B, P], and loss, [B], are finite: [B]."""
    nothing = (gradient.detach() * 0.0).sum(-1)  # NaN if one of them is not; several times faster than isfinite
    return (nothing + loss.detach()).isfinite()


def _product(tensor: Tensor, *factors: Tensor | None) -> Tensor:
    """A tensor times what of the factors there is."""
    for factor in factors:
        tensor = tensor if factor is None else tensor * factor
    return tensor
