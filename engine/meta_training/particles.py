"""Particles: a learned optimizer with perturbed meta-parameters, forward only, many of them side by side.

All particles train the same optimizees: from the same parameters, on the same batches, with the same random numbers.
Nothing is kept along an unroll but what the next inner step needs.

Shape letters: M particles, B optimizees of each, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from engine import kernels
from engine.base.flat import Batch, as_far_as_possible, of_particles, row_of, under
from engine.base.metrics import objective_term, penalty_value
from engine.meta_training import unroll
from engine.meta_training.backward import blank, known, sound
from engine.meta_training.inner_steps import InnerSteps, Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.meta_training.penalty_terms import pair
from engine.optimizers.learned.base import Phi, State, StepInfo
from engine.penalties.base import InnerStep, go_to, positions
from engine.presets.tables import AT_THE_END

SMOOTHING = 0.9  # of the training loss that tells when a given loss is reached


@dataclass(frozen=True, kw_only=True)
class Particles(UnrollState):
    """What goes from one truncation to the next, of M particles with B optimizees each: with a leading [M]."""

    loss_sum: Tensor  # [M, B], of the weighted losses so far
    weight_sum: float  # of their weights
    lowest: Tensor  # [M, B], the lowest loss so far
    smoothed: Tensor  # [M, B], the loss by exponential smoothing, without correction of its start at 0
    at_loss: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """By a loss as text: whether it was reached, [M, B], and where the optimizee was then, [M, B, P]."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is tensors, by name, for a checkpoint: the optimizees first, [B, M, ...]."""
        tensors = super().tensors() | {name: getattr(self, name) for name in ("loss_sum", "lowest", "smoothed")}
        for text, (reached, point) in self.at_loss.items():
            tensors |= {f"at_loss/{text}/reached": reached, f"at_loss/{text}/point": point}
        return {name: part if name == "scaling" else _optimizees_first(part) for name, part in tensors.items()}

    def facts(self) -> dict[str, Any]:
        return {"weight_sum": self.weight_sum}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Particles:
        size = tensors["theta"].shape[1]
        back = {
            name: part.transpose(0, 1).contiguous() if part.dim() > 1 else part.expand(size)
            for name, part in tensors.items()
            if name != "scaling"
        }
        of_unroll = UnrollState.restored(back, facts)
        at_loss = under("at_loss", back)
        texts = dict.fromkeys(name.split("/")[0] for name in at_loss)
        own: dict[str, Any] = {name: back[name] for name in ("loss_sum", "lowest", "smoothed")}
        own["at_loss"] = {text: (at_loss[f"{text}/reached"], at_loss[f"{text}/point"]) for text in texts}
        own |= {"weight_sum": facts["weight_sum"], "scaling": tensors.get("scaling")}
        return cls(**{**vars(of_unroll), **own})


def _optimizees_first(tensor: Tensor) -> Tensor:
    """[M, B, ...] to [B, M, ...]; of what is the same for all particles and optimizees, [M], one."""
    return tensor.transpose(0, 1).contiguous() if tensor.dim() > 1 else tensor[0]


def begin(
    objective: Objective,
    particles: int,
    theta: Tensor,
    batch: Batch | None,
    *,
    scaling: Tensor | None = None,
    horizon: int | None = None,
) -> Particles:
    """Particles at inner step 0, all at theta, [B, P]; `batch` gives the first gradient (loss_batch = next)."""
    points = theta.detach().expand(particles, *theta.shape)
    init = as_far_as_possible(lambda point: objective.optimizer.init(point, objective.layout))
    state = init((points if scaling is None else points / scaling).contiguous())
    of_unroll = unroll.begin(objective, points, batch, scaling=scaling, horizon=horizon, state=state)
    zeros = torch.zeros_like(of_unroll.loss)
    to_reach = dict.fromkeys(_text(term.at) for term in objective.terms.values() if term.at)
    return Particles(
        **vars(of_unroll),
        loss_sum=zeros,
        weight_sum=0.0,
        lowest=torch.full_like(zeros, torch.inf),
        smoothed=zeros,
        at_loss={text: (zeros.bool(), points) for text in to_reach},
    )


def run_truncation(
    objective: Objective, phis: Phi, carry: Particles, inputs: Inputs
) -> tuple[PartialGradient, Particles]:
    """Take the inputs' inner steps with meta-parameters of every particle, [M, ...] each.

    What is returned has `values`, [M]: what each particle adds to the meta-objective, summed over its optimizees; no
    gradients. An optimizee that diverges rests, and has the capped loss from there on.
    """
    under_way = ParticleTruncation(objective, phis, carry, inputs)
    with torch.no_grad():
        under_way.run()
        result = under_way.partial(), under_way.carry_on()
    under_way.steps.close()
    return result


class ParticleTruncation(InnerSteps):
    """One truncation under way; without gradients, so within `torch.no_grad`."""

    start: Particles

    def __init__(self, objective: Objective, phis: Phi, carry: Particles, inputs: Inputs) -> None:
        super().__init__(objective, carry, inputs)
        self.phis, self.steps = phis, ParticleSteps(objective, phis, carry)
        self.loss_sum, self.weight_sum = carry.loss_sum, carry.weight_sum
        self.lowest, self.smoothed, self.at_loss = carry.lowest, carry.smoothed, dict(carry.at_loss)
        self.last = self.loss  # [M, B], not above the cap
        self.plain_sum = torch.zeros_like(carry.loss)
        self.penalties = torch.zeros_like(carry.loss)  # the weighted penalties so far
        self.penalty_sums: dict[str, Tensor] = {}
        self.penalty_totals: dict[str, Tensor] = {}  # [M, B] by penalty: its values times the losses' factors
        self.update_norm = torch.zeros_like(carry.loss)
        self.moved = torch.zeros_like(carry.loss)

    def move(self, factor: float) -> dict[str, Tensor]:
        """Move every particle's optimizees; the values of the update penalties, [M, B], by name."""
        values, scaling = self._smoothness_at(factor), self.start.scaling
        resting = known(~self.alive)
        grad, theta = blank(self.grad, resting), self.theta
        if scaling is not None:  # the learned optimizer trains z where theta = scaling * z
            grad, theta = grad * scaling, theta / scaling
        update = self.steps(theta, grad, blank(self.loss, resting), self.number)
        update = blank(update if scaling is None else update * scaling, resting)
        self.theta = self.theta + update
        self.update_norm = self.update_norm + update.norm(dim=-1)
        self.moved = self.moved + self.alive
        return values

    def score(self, gradient: Tensor, loss: Tensor, batch: Batch, factor: float, step: dict[str, Tensor]) -> None:
        counts = self.alive & sound(gradient, loss)
        self.counted = self.counted + counts
        values = dict(step)
        for name, penalty in self.objective.geometric.items() if factor else ():
            if self.number >= penalty.start:
                values[name] = self._penalty_values(name, batch, loss, gradient)
        for name, value in values.items():
            at_every_step = name in self.objective.update and self.objective.update[name].every_step
            self._add_penalty(name, value, loss, 1.0 if at_every_step else factor, counts)
        cap = self.objective.divergence_cap * self.first_loss
        self.last = torch.where(self.alive & (loss <= cap), loss, cap)
        self.alive = counts & (loss <= cap)
        self.plain_sum = self.plain_sum + self.last
        self.loss_sum = self.loss_sum + factor * self.last
        self.weight_sum += factor
        self.lowest = torch.minimum(self.lowest, self.last)
        if self.at_loss:
            self._note_where_losses_are_reached()

    def _penalty_values(self, name: str, batch: Batch, loss: Tensor, gradient: Tensor) -> Tensor:
        """Those of a geometric penalty, [M, B], at theta, where losses, [M, B], and gradients, [M, B, P], are known."""
        at, number = self.penalty_at[name], self.number
        return vmap(lambda theta, value, slope: at(theta, batch, value, slope, number)[0])(self.theta, loss, gradient)

    def _add_penalty(self, name: str, value: Tensor, loss: Tensor, factor: float, counts: Tensor) -> None:
        penalty = (self.objective.geometric | self.objective.update)[name]
        taken = counts & value.isfinite() & ((loss > 0) if penalty.relative else True)
        value = torch.where(taken, value / loss if penalty.relative else value, 0.0)
        self.penalty_sums[name] = self.penalty_sums.get(name, 0.0) + pair(value.sum(), taken.sum())
        self.penalty_totals[name] = self.penalty_totals.get(name, 0.0) + factor * value
        self.penalties = self.penalties + factor * penalty.weight * value
        if penalty.weight:
            self.dropped = self.dropped + (counts & ~taken)

    def _smoothness_at(self, loss_factor: float) -> dict[str, Tensor]:
        """The update penalties of the coming inner step, [M, B]; every particle gets the same random numbers."""
        penalties = {
            name: penalty
            for name, penalty in self.objective.update.items()
            if self.number >= penalty.start and (loss_factor or penalty.every_step)
        }
        if not penalties:
            return {}
        optimizer, scaling = self.objective.optimizer, self.start.scaling
        grad, theta, state = blank(self.grad, known(~self.alive)), self.theta, self.steps.state()
        if scaling is not None:
            grad, theta = grad * scaling, theta / scaling
        randomness, before = self.inputs.randomness, positions(self.inputs.randomness)
        values: dict[str, list[Tensor]] = {name: [] for name in penalties}
        for m in range(len(theta)):
            go_to(randomness, before)
            phi = row_of(self.phis, m)
            info = StepInfo(self.loss[m], self.number, self.start.horizon, self.objective.task)
            with torch.enable_grad():
                features, seen = optimizer.observe(theta[m], grad[m], row_of(state, m), self.objective.layout, info)
                update, _ = optimizer.step(phi, features, seen)
                factor = optimizer.update_factor(theta[m], self.objective.layout, grad[m])
                for name, penalty in penalties.items():
                    step = InnerStep(features, seen, update, factor)
                    values[name].append(penalty.value(optimizer, phi, step, randomness).detach())
        return {name: torch.stack(of_each) for name, of_each in values.items()}

    def _note_where_losses_are_reached(self) -> None:
        self.smoothed = SMOOTHING * self.smoothed + (1 - SMOOTHING) * self.last
        smooth = self.smoothed / (1 - SMOOTHING ** (self.number + 1))
        for text, (reached, point) in self.at_loss.items():
            point = torch.where(reached[..., None], point, self.theta)
            self.at_loss[text] = (reached | (smooth <= float(text)), point)

    def partial(self) -> PartialGradient:
        """What the truncation came to."""
        objective, taken = self.objective, max(1, self.taken)
        factors = math.fsum(self.inputs.factors)
        penalties = self.penalties / (factors or 1.0)
        is_last = objective.settings.loss in AT_THE_END  # then penalties, too, count where the unroll ends
        along, at_end = (
            (torch.zeros_like(penalties), penalties) if is_last else (penalties, torch.zeros_like(penalties))
        )
        sums = {
            "meta_loss": pair(torch.where(self.first_loss.isfinite(), self.plain_sum, 0.0).sum() / taken, _count(self)),
            "update_norm": pair(self.update_norm.sum(), self.moved.sum()),
            "dropped_terms": pair(self.dropped.sum(), 0),
            "counted_terms": pair(self.counted.sum(), 0),
        }
        sums |= {penalty_value(name).name: total for name, total in self.penalty_sums.items()}
        if objective.settings.loss == "mean" and not objective.settings.log:
            along = along + (self.loss_sum - self.start.loss_sum) / (factors or 1.0)
        elif self.inputs.ends:
            at_end = at_end + self.loss_that_counts()
        if self.inputs.ends:
            for name, term in objective.terms.items():
                if self.inputs.meta_epoch < term.start:
                    continue
                measured = self.term(name)
                at_end = at_end + term.weight * measured
                sums[objective_term(name).name] = pair(measured.sum(), measured.numel())
        began = self.first_loss.isfinite()  # one without a first loss has nothing to say
        repeats = (
            self.start.truncations + 1.0
        )  # what is only known at the end counts for all truncations, as a mean does
        value = torch.where(began, along + repeats * at_end, 0.0)
        sums["meta_objective"] = pair(torch.where(began, along + at_end, 0.0).sum(), value.numel())
        return PartialGradient(value.shape[1], {}, sums, values=value.sum(1))

    def loss_that_counts(self) -> Tensor:
        """[M, B], of the whole unroll."""
        settings = self.objective.settings
        if settings.loss in AT_THE_END:
            loss = self._on_fresh_batches() if self.inputs.final is not None else self.last
        else:
            loss = self.lowest if settings.loss == "minimum" else self.loss_sum / (self.weight_sum or 1.0)
        return loss.log() if settings.log else loss

    def _on_fresh_batches(self) -> Tensor:
        batches = self.inputs.final
        assert batches is not None
        many = of_particles(self.objective.loss)
        loss = torch.stack([many(self.theta, batches[index]) for index in range(len(batches))]).mean(0)
        cap = self.objective.divergence_cap * self.first_loss
        return torch.where(self.alive & (loss <= cap), loss, cap)

    def term(self, name: str) -> Tensor:
        """A term's values, [M, B]; where an optimizee diverged, the worst that it has with another particle."""
        term, task = self.objective.terms[name], self.objective.task
        assert task is not None
        points = self.at_loss[_text(term.at)][1] if term.at else self.theta
        value = torch.full_like(self.last, torch.nan)
        for b, seed in enumerate(self.objective.data_seeds):
            if len(alive := self.alive[:, b].nonzero()[:, 0]):  # on the data that it was trained on
                value[alive, b] = term.value(task.of([seed] * len(alive)), points[alive, b]).to(value)
        if not self.objective.data_seeds and self.alive.any():
            value[self.alive] = term.value(task, points[self.alive]).to(value)
        measured = value.isfinite()
        worst = torch.where(measured, value, -torch.inf).amax(0)
        return torch.where(measured, value, worst.nan_to_num(neginf=0.0))

    def carry_on(self) -> Particles:
        return replace(
            self.start,
            theta=self.theta,
            state=self.steps.state(),
            grad=self.grad,
            loss=self.loss,
            first_loss=self.first_loss,
            alive=self.alive,
            loss_sum=self.loss_sum,
            weight_sum=self.weight_sum,
            lowest=self.lowest,
            smoothed=self.smoothed,
            at_loss=self.at_loss,
            inner_step=self.number,
            truncations=self.start.truncations + 1,
            batch=None,
        )


class ParticleSteps:
    """The particles' learned optimizers taking inner steps: by kernels where there are some, else as one for all."""

    def __init__(self, objective: Objective, phis: Phi, carry: Particles) -> None:
        self._layout, self._optimizer, self._phis = objective.layout, objective.optimizer, phis
        self._task = objective.task
        self._state, self._number, self._horizon = carry.state, 0, carry.horizon
        self._update = as_far_as_possible(self._one)
        self._kernels: list[kernels.Steps] = []
        self._together: kernels.Steps | None = None  # one kernel for all particles
        if kernels.takes_many(self._optimizer, phis, carry.theta):
            self._together = kernels.steps(self._optimizer, phis, carry.state, carry.theta, self._layout)
        elif kernels.goes_native(self._optimizer, carry.theta.device, carry.theta.dtype):
            self._kernels = [
                kernels.steps(self._optimizer, row_of(phis, m), row_of(carry.state, m), theta, self._layout)
                for m, theta in enumerate(carry.theta)
            ]

    def __call__(self, theta: Tensor, grad: Tensor, loss: Tensor, number: int) -> Tensor:
        """The updates, [M, B, P], of inner step `number`."""
        if self._together is not None:
            return self._together(theta, grad, StepInfo(loss, number, self._horizon))
        if self._kernels:
            rows = zip(self._kernels, theta, grad, loss, strict=True)
            return torch.stack([step(t, g, StepInfo(of_each, number, self._horizon)) for step, t, g, of_each in rows])
        self._number = number
        updates, self._state = self._update(self._phis, theta, grad, self._state, loss)
        return updates

    def _one(self, phi: Phi, theta: Tensor, grad: Tensor, state: State, loss: Tensor) -> tuple[Tensor, State]:
        """One particle's."""
        info = StepInfo(loss, self._number, self._horizon, self._task)
        return self._optimizer.update(phi, theta, grad, state, self._layout, info)

    def close(self) -> None:
        """Let go of what refers to these steps: else their states would wait for the garbage collector."""
        del self._update

    def state(self) -> State:
        """The optimizer states, with a leading [M]."""
        if self._together is not None:
            return self._together.state()
        if self._kernels:
            states = [step.state() for step in self._kernels]
            self._state = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        return self._state


def _text(loss: float) -> str:
    return repr(float(loss))


def _count(under_way: ParticleTruncation) -> Tensor:
    return under_way.first_loss.isfinite().to(under_way.loss.dtype).sum()
