"""Unroll: one truncation of inner steps, and its meta-gradient by cotangent injection.

Every term of the meta-objective that depends on the optimizee only through theta_t is a value and a gradient g_t at
theta_t. With g_t held constant, sum_t <g_t, theta_t(phi)> has the meta-gradient of the objective: so only the learned
optimizer is differentiated, with the gradients g_t as the cotangents of theta_t (`engine.meta_training.backward`). In
the second-order mode they go back through the optimizee's gradients as well (`engine.meta_training.second_order`).

Shapes: B optimizees, P parameters, T inner steps of the truncation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from engine import kernels
from engine.base.flat import Batch, gradients_and_losses
from engine.meta_training.backward import (
    AutogradBackward,
    Backward,
    PenaltyEntry,
    Step,
    StepResult,
    StepStart,
    Take,
    TapeBackward,
    blank,
    known,
    sound,
)
from engine.meta_training.inner_steps import InnerSteps, Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import GEOMETRIC, LOSS, PartialGradient
from engine.meta_training.penalty_terms import PenaltyTerms, divisor, pair, usable
from engine.meta_training.second_order import SecondOrderBackward
from engine.optimizers.learned.base import START, Phi, State, StepInfo, without_start
from engine.penalties.base import InnerStep, is_plain_ascent
from engine.presets.tables import AT_THE_END, MetaSettings, ObjectiveSettings
from engine.tasks.base import Batches


def weights(scheme: str, steps: int, *, decay: float = 0.9, first: int = 0) -> list[float]:
    """The factors w_j of the losses along a truncation of `steps` inner steps (docs/method.md#meta-objective).

    uniform 1; linear j / sum(1..T); decayed decay^(T - j); final 1 for the last; xh_code: for all of the truncation the
    number of its `first` inner step, k T in truncation k.
    """
    numbers = range(1, steps + 1)
    if scheme == "uniform":
        return [1.0] * steps
    if scheme == "linear":
        return [2.0 * step / (steps * (steps + 1)) for step in numbers]
    if scheme == "decayed":
        return [decay ** (steps - step) for step in numbers]
    if scheme == "final":
        return [float(step == steps) for step in numbers]
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
    state: State | None = None,
) -> UnrollState:
    """The carry at inner step 0 for parameters [B, P]; `batch` gives the first gradient (loss_batch = next).

    `state`: that of the learned optimizer where it is known, as of particles, [M, B, P].
    """
    theta = theta.detach()
    if state is None:
        state = objective.optimizer.init(theta if scaling is None else theta / scaling, objective.layout)
    carry = UnrollState(
        theta=theta,
        state=state,
        grad=torch.zeros_like(theta),
        loss=torch.full_like(theta[..., 0], torch.inf),
        first_loss=torch.full_like(theta[..., 0], torch.inf),
        alive=torch.ones_like(theta[..., 0], dtype=torch.bool),
        scaling=scaling,
        horizon=horizon,
    )
    if batch is None:
        return carry
    grad, loss = gradients_and_losses(objective.loss, theta, batch)
    return replace(carry, grad=grad, loss=loss, first_loss=loss, alive=sound(grad, loss), batch=batch)


def run_truncation(
    objective: Objective, phi: Phi, carry: UnrollState, inputs: Inputs
) -> tuple[PartialGradient, UnrollState]:
    """Take the inner steps of the inputs: what they contribute to the meta-gradient, and the next carry.

    phi's tensors must require gradients. An optimizee's terms count until it diverges (loss or gradient not finite, or
    loss above the cap), that inner step included if all is finite; then it rests. A penalty that is not finite is left
    out and counted in `dropped_terms`.
    """
    under_way = Truncation(objective, phi, carry, inputs)
    under_way.run()
    result = under_way.partial(), under_way.carry_on()
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


class Truncation(InnerSteps):
    """A truncation under way that is gone back through."""

    def __init__(self, objective: Objective, phi: Phi, carry: UnrollState, inputs: Inputs) -> None:
        super().__init__(objective, carry, inputs)
        self.phi, self.state = phi, carry.state
        self.backward = _backward(objective, phi, carry, len(inputs.factors), self._take)
        if START in phi and carry.inner_step == 0 and not objective.second_order:
            self.theta = phi[START].expand_as(carry.theta)  # the same numbers, with their graph
        self.batch = carry.batch  # that the gradient is of
        self.thetas: list[Tensor] = []
        self.losses: list[Tensor] = []  # [B], not above the divergence cap
        self.update_norms: list[Tensor] = []
        self.moving: list[Tensor] = []  # [B], whether the optimizee had not diverged
        self.moves: list[Tensor] = []  # [B, P] or [B, 1], d theta / d update of the network
        self.loss_cotangents: list[Tensor] = []
        self.penalty_cotangents: list[Tensor] = []  # of all geometric penalties together
        self.penalty_terms = {name: PenaltyTerms() for name in (*objective.geometric, *objective.update)}

    def inner_step(self, batch: Batch, scoring: Batch | None, factor: float) -> None:
        if self.objective.optimizer.gives_start and self.number == 0:
            self._begin(self.batch if self.objective.loss_batch == "next" else batch)
        super().inner_step(batch, scoring, factor)

    def slopes(self, batch: Batch, *, feeds: bool) -> tuple[Tensor, Tensor]:
        self.batch = batch if feeds else self.batch
        if feeds and isinstance(self.backward, SecondOrderBackward):
            return self.backward.slopes(self.theta, batch)
        return super().slopes(batch, feeds=feeds)

    def _begin(self, batch: Batch) -> None:
        """Go to where the learned optimizer starts from, with its graph to phi."""
        objective, layout = self.objective, self.objective.layout
        assert layout is not None
        self.theta = objective.optimizer.start(without_start(self.phi), self.start.theta, batch, layout)
        self.state = objective.optimizer.init(self.theta.detach(), layout)
        if objective.loss_batch == "next":
            self.grad, self.loss = gradients_and_losses(objective.loss, self.theta, batch)
            self.first_loss, self.alive = self.loss, sound(self.grad, self.loss)

    def move(self, factor: float) -> InnerStep:
        theta = self.theta if self.objective.optimizer.differentiates_theta else self.theta.detach()
        point = StepStart(theta, self.grad, self.loss, ~self.alive, self.number, self.batch)
        moved, self.state, step = self.backward.advance(point, self.state)
        self.theta = self.theta + moved
        self.update_norms.append(moved.detach().norm(dim=-1))
        self.moving.append(self.alive)
        self.moves.append(_product(self.alive[:, None], step.factor, self.start.scaling))
        return step

    def _take(self, network_step: Step, point: StepStart, state: State) -> StepResult:
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
        return StepResult(moved, state, InnerStep(features, observed, update, factor))

    def score(self, gradient: Tensor, loss: Tensor, batch: Batch, factor: float, step: InnerStep) -> None:
        """Book this inner step's terms: cotangents for the new theta, weighted values of the update penalties."""
        optimizees, is_last = len(loss), self.taken == len(self.inputs.factors) - 1
        final = self.inputs.final if is_last else None
        counting_gradient, counting_loss = gradient, loss
        counts = self.alive & sound(gradient, loss)
        if final is not None:
            counting_gradient, counting_loss = self._on_fresh_batches(final)
            counts = counts & sound(counting_gradient, counting_loss)
        self.counted = self.counted + counts
        self.thetas.append(self.theta)
        self.loss_cotangents.append(blank(factor / optimizees * counting_gradient, known(~counts)))
        if factor and self.objective.geometric:
            slopes = self._geometric_slopes(gradient, loss, batch, factor, counts)
            self.penalty_cotangents.append(factor / optimizees * slopes)
        elif self.objective.geometric:
            self.penalty_cotangents.append(torch.zeros_like(gradient))
        self._book_update_penalties(loss, step, factor, counts)
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
            if self.number < penalty.start:
                continue
            value, slope = self.penalty_at[name](self.theta.detach(), batch, loss, gradient, self.number)
            taken = usable(penalty, loss, counts & sound(slope, value))
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
            if not share or self.number < penalty.start:
                continue
            value, source = self.backward.penalty(penalty, step, self.inputs.randomness)
            taken = usable(penalty, loss, counts & value.isfinite())
            divided_by = divisor(penalty, loss, taken)
            entry = PenaltyEntry(source, share * penalty.weight * taken.to(value.dtype) / divided_by)
            self.penalty_terms[name].add_update(value / divided_by, taken, entry)
            if penalty.weight:
                self.dropped = self.dropped + (counts & ~taken)

    def partial(self) -> PartialGradient:
        """Pull the cotangents back to phi, and add up the metrics of the truncation."""
        moving = torch.stack(self.moving)  # [T, B]
        update_norms = torch.where(moving, torch.stack(self.update_norms), 0.0)
        sums = {
            "meta_loss": self._meta_loss(),
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
        last = self.number - 1
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

    def _meta_loss(self) -> Tensor:
        """The sum of losses and weights whose ratio is the mean loss over the truncation and the optimizees.

        The weights are the truncation's unless they are all zero.
        An optimizee whose very first loss is not finite has no loss to speak of and is left out.
        """
        losses = torch.stack(self.losses)  # [T, B]
        factors = self.inputs.factors if any(self.inputs.factors) else [1.0] * len(losses)
        weighted = torch.stack([factor * loss for factor, loss in zip(factors, losses, strict=True)]).sum(0)
        began = self.first_loss.isfinite()
        number = began.to(losses.dtype).sum()  # a count times a float would be rounded to float32
        return pair(torch.where(began, weighted, 0.0).sum(), number * math.fsum(factors))

    def carry_on(self) -> UnrollState:
        return replace(
            self.start,
            theta=self.theta.detach(),
            state=self.backward.state(self.state),
            grad=self.grad.detach(),
            loss=self.loss.detach(),
            first_loss=self.first_loss,
            alive=self.alive,
            inner_step=self.number,
            truncations=self.start.truncations + 1,
            batch=None,
        )


def _product(tensor: Tensor, *factors: Tensor | None) -> Tensor:
    """A tensor times what of the factors there is."""
    for factor in factors:
        tensor = tensor if factor is None else tensor * factor
    return tensor
