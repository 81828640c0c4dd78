"""Diagnosis: whether an estimator's meta-gradient of every part of a meta-objective points the right way.

One meta-parameter, the log a of the update scale, is put before a frozen learned optimizer: theta <- theta + exp(a) u.
By it every part (the loss, each penalty, each term) has a derivative at a = 0 that the estimator gives, with that
estimator's own code, and a true one: central differences of whole unrolls with common random numbers. Both are of

    J(a) = sum_t w_t f_t(a) / sum_t w_t

along an unroll; the loss as [objective] has it. Penalties are taken without their weights.

Shape letters: B optimizees, P parameters, M log scales.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from engine.base.flat import plain_attention
from engine.evaluation.frozen_unroll import nothing
from engine.meta_training.estimators.base import GradientEstimator
from engine.meta_training.estimators.es import ES
from engine.meta_training.inner_steps import Inputs
from engine.meta_training.meta_epoch import MetaEpoch
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import LOSS, PartialGradient
from engine.meta_training.particles import Particles, ParticleTruncation
from engine.meta_training.unroll import loss_factors
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo, learned_start, without_start
from engine.penalties.base import GeometricPenalty, Penalty, UpdatePenalty
from engine.presets.tables import MetaSettings
from engine.tasks.base import Layout, Task, TaskDistribution, UniformTasks

LOG_SCALE = "log_scale"
DIFFERENCE = 0.1  # of the log scale, to either side
WINDOW = 100  # inner steps
SIDE_BY_SIDE = 8  # optimizees of a task that are unrolled together

Part = tuple[str, str]
"""What is looked at: ("loss", ""), ("penalty", name), ("term", name)."""
THE_LOSS: Part = ("loss", "")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledUpdate(LearnedOptimizer):
    """u = exp(a) u_phi with phi frozen; a, of shape [1] for all or [B, 1], is the only meta-parameter."""

    frozen: LearnedOptimizer
    frozen_phi: Phi

    def __post_init__(self) -> None:
        for name in ("gradient_features", "differentiates_theta", "theta_in_state", "uses_task"):
            object.__setattr__(self, name, getattr(self.frozen, name))

    def init_phi(self, generator: Generator) -> Phi:
        return {LOG_SCALE: torch.zeros(1)}

    def init(self, theta: Tensor, layout: Layout) -> State:
        return self.frozen.init(theta, layout)

    def observe(
        self, theta: Tensor, grad: Tensor, state: State, layout: Layout, info: StepInfo
    ) -> tuple[Tensor, State]:
        return self.frozen.observe(theta, grad, state, layout, info)

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        update, state = self.frozen.step(self.frozen_phi, features, state)
        return phi[LOG_SCALE].exp() * update, state

    def update_factor(self, theta: Tensor, layout: Layout | None, grad: Tensor) -> Tensor | None:
        return self.frozen.update_factor(theta, layout, grad)


@dataclass(frozen=True, kw_only=True, eq=False)
class UnrollValues(ES):
    """No gradient: the values of every part of the objective at several log scales, one particle for each."""

    log_scales: tuple[float, ...]
    totals: list[dict[Part, Tensor]] = field(default_factory=list)  # of each truncation, [M, B]: sums of w_t f_t
    at_end: dict[Part, Tensor] = field(default_factory=dict)  # [M, B], of what is only there at the end
    alive: list[Tensor] = field(default_factory=list)  # [B] after each truncation: undiverged at all log scales

    whole_unrolls: ClassVar[bool] = False

    @property
    def particles(self) -> int:
        return len(self.log_scales)

    @torch.no_grad()
    def estimate(
        self, objective: Objective, phi: Phi, carry: Particles, inputs: Inputs
    ) -> tuple[PartialGradient, Particles]:
        scales = {LOG_SCALE: carry.theta.new_tensor(self.log_scales)[:, None]}
        under_way = ParticleTruncation(objective, scales, carry, inputs)
        under_way.run()
        totals = {("penalty", name): total for name, total in under_way.penalty_totals.items()}
        self.totals.append({THE_LOSS: under_way.loss_sum - carry.loss_sum, **totals})
        if inputs.ends:
            self.at_end[THE_LOSS] = under_way.loss_that_counts()
            self.at_end.update({("term", name): under_way.term(name) for name in objective.terms})
        self.alive.append(under_way.alive.all(0))
        return PartialGradient(carry.theta.shape[1], {}, {}), under_way.carry_on()


@dataclass(frozen=True)
class Derivatives:
    """The derivatives of one part by the log of the update scale, in a window of an unroll."""

    part: Part
    window: tuple[int, int]  # inner steps, from and before
    task: str
    value: list[float]  # of each optimizee
    true: list[float]
    estimated: list[float] | None  # None where the estimator has none: it is unbiased, or knows no derivative of this
    diverged: int = 0  # optimizees, at one log scale or another


@dataclass(frozen=True)
class Diagnosis:
    """What is to be compared, and how: `derivatives` does it."""

    optimizer: LearnedOptimizer
    phi: Phi
    objective_on: Callable[[Task], Objective]  # with all penalties and terms that are looked at
    settings: MetaSettings
    estimator: GradientEstimator | None  # whose derivatives are judged; None: one without bias
    horizon: int
    seed: int
    difference: float = DIFFERENCE
    windows: bool = False

    @property
    def truncation(self) -> int:
        """Inner steps of a truncation; where no estimator is judged only windows go by it."""
        length = self.settings.truncation if self.estimator is not None else max(1, min(WINDOW, self.horizon // 4))
        return min(length, self.horizon)

    def truncations(self, tasks: TaskDistribution, optimizees: int, penalties: int) -> int:
        """How many truncations `derivatives` takes, where that many penalties are looked at."""
        groups = sum(math.ceil(len(numbers) / SIDE_BY_SIDE) for _, numbers in tasks.held_out(optimizees))
        unrolls = 1 if self.estimator is None else 2 + penalties
        return groups * unrolls * math.ceil(self.horizon / self.truncation)

    @plain_attention()
    def derivatives(
        self, tasks: TaskDistribution, optimizees: int, tick: Callable[[], None] = nothing
    ) -> list[Derivatives]:
        """Of `optimizees` fresh optimizees of every task; `tick` is called after each truncation and may raise."""
        by_part: dict[tuple[Part, tuple[int, int], str], list[Derivatives]] = {}
        for task, numbers in tasks.held_out(optimizees):
            for first in range(0, len(numbers), SIDE_BY_SIDE):
                for derivatives in self._of_group(task, numbers[first : first + SIDE_BY_SIDE], tick):
                    by_part.setdefault((derivatives.part, derivatives.window, derivatives.task), []).append(derivatives)
        return [joined(same) for same in by_part.values()]

    def _of_group(self, task: Task, numbers: Sequence[int], tick: Callable[[], None]) -> list[Derivatives]:
        objective = self._scaled(task)
        values = UnrollValues(log_scales=(self.difference, -self.difference))
        factors, _ = self._unroll(task, numbers, objective, values, tick)
        estimated = self._estimated(task, numbers, objective, tick)
        sums = [math.fsum(part) for part in factors]
        windows = self._windows(len(factors))
        penalties: list[Part] = [("penalty", name) for name in (*objective.geometric, *objective.update)]
        parts = [part for part in (THE_LOSS, *penalties) if any(part in total for total in values.totals)]
        diverged = len(numbers) - int(values.alive[-1].sum())
        derivatives = []
        for part, (first, last) in itertools.product(parts, windows):
            if part == THE_LOSS and not self._is_mean(objective):
                continue
            weight = math.fsum(sums[first:last]) or 1.0
            total = torch.stack(
                [of[part] for of in values.totals[first:last] if part in of]
                or [torch.zeros_like(values.totals[0][THE_LOSS])]
            ).sum(0)
            slope = None
            if part in estimated:
                slope = torch.stack(estimated[part][first:last]).sum(0) / weight
            derivatives.append(self._derivatives(part, (first, last), task, total / weight, slope))
        for part, value in values.at_end.items():
            if part != THE_LOSS or not self._is_mean(objective):
                slope = torch.stack(estimated[part]).sum(0) / (math.fsum(sums) or 1.0) if part in estimated else None
                derivatives.append(self._derivatives(part, (0, len(factors)), task, value, slope))
        return [replace(item, diverged=diverged) for item in derivatives]

    def _derivatives(
        self, part: Part, truncations: tuple[int, int], task: Task, values: Tensor, slope: Tensor | None
    ) -> Derivatives:
        plus, minus = values
        first, last = (min(self.horizon, number * self.truncation) for number in truncations)
        true = (plus - minus) / (2 * self.difference)
        estimated = None if slope is None else slope.tolist()
        return Derivatives(part, (first, last), task.name, ((plus + minus) / 2).tolist(), true.tolist(), estimated)

    def _scaled(self, task: Task) -> Objective:
        """The objective on a task, of the one meta-parameter."""
        scaled = ScaledUpdate(frozen=self.optimizer, frozen_phi=without_start(self._phi_of(task)))
        return replace(self.objective_on(task), optimizer=scaled)

    def _phi_of(self, task: Task) -> Phi:
        return {name: tensor.to(task.device, task.dtype) for name, tensor in self.phi.items()}

    def _estimated(
        self, task: Task, numbers: Sequence[int], objective: Objective, tick: Callable[[], None]
    ) -> dict[Part, list[Tensor]]:
        """The estimator's derivatives by part, of each truncation: [B], of the sum of w_t f_t.

        One unroll for the loss and one for each penalty: all geometric penalties together have one gradient only.
        """
        if self.estimator is None:
            return {}
        bare = replace(
            objective, geometric={}, update={}, parameter={}, terms={}, second_order=self.estimator.second_order
        )
        _, plain = self._unroll(task, numbers, bare, self.estimator, tick)
        is_derivable = objective.settings.loss != "minimum" and not objective.settings.log
        by_part: dict[Part, list[Tensor]] = {THE_LOSS: [of[LOSS] for of in plain]} if is_derivable else {}
        for name, penalty in objective.update.items():
            single = replace(bare, update={name: replace(penalty, weight=1.0)})
            _, gradients = self._unroll(task, numbers, single, self.estimator, tick)
            by_part["penalty", name] = [of.get(name, torch.zeros_like(of[LOSS])) for of in gradients]
        for name, geometric in objective.geometric.items():
            single = replace(bare, geometric={name: replace(geometric, weight=1.0)})
            _, gradients = self._unroll(task, numbers, single, self.estimator, tick)
            pairs = zip(gradients, plain, strict=True)
            by_part["penalty", name] = [both[LOSS] - loss[LOSS] for both, loss in pairs]
        return by_part

    def _unroll(
        self,
        task: Task,
        numbers: Sequence[int],
        objective: Objective,
        estimator: GradientEstimator,
        tick: Callable[[], None],
    ) -> tuple[list[list[float]], list[dict[str, Tensor]]]:
        """An unroll: the losses' factors and the gradients by the log scales of each optimizee, [B], by truncation.

        For the same numbers the optimizees, batches and random numbers are always the same. They begin where the
        learned optimizer does, if it has learned that.
        """
        inputs = (UniformTasks([task]), lambda _: objective, estimator, self.settings)
        epoch = MetaEpoch(*inputs, seed=self.seed, number=numbers[0], horizon=self.horizon).begin(len(numbers))
        (group,) = epoch.groups
        if (start := learned_start(self.optimizer, self._phi_of(task))) is not None:
            theta = group.carry.theta.reshape(-1, len(numbers), group.carry.theta.shape[-1])[0]
            epoch.begin(len(numbers), start(theta, epoch.first_batches()[0], task.layout).detach())
            (group,) = epoch.groups
        log_scales = torch.zeros(len(numbers), 1, dtype=task.dtype, device=task.device, requires_grad=True)
        factors, gradients = [], []
        for first in range(0, self.horizon, self.truncation):
            steps = min(self.truncation, self.horizon - first)
            factors.append(loss_factors(self.settings, objective.settings, first, steps, self.horizon))
            partial = epoch.advance(group, {LOG_SCALE: log_scales}, factors[-1])
            # of a mean over B optimizees each has a B-th part
            gradients.append({name: len(numbers) * of[LOG_SCALE][:, 0] for name, of in partial.gradients.items()})
            tick()
        return factors, gradients

    def _windows(self, truncations: int) -> list[tuple[int, int]]:
        """Of truncations, from and before: all, and parts of about WINDOW inner steps, or quarters if shorter."""
        whole, each = (0, truncations), max(1, round(min(WINDOW, self.horizon / 4) / self.truncation))
        if not self.windows or each >= truncations:
            return [whole]
        starts = range(0, truncations, each)
        return [whole, *((first, min(first + each, truncations)) for first in starts)]

    @staticmethod
    def _is_mean(objective: Objective) -> bool:
        """Whether the loss that counts adds up along the unroll."""
        return objective.settings.loss == "mean" and not objective.settings.log


def with_penalties(objective: Objective, penalties: Mapping[str, Penalty]) -> Objective:
    """The objective with more penalties to look at. Those on phi alone do not see the scale, and are left out."""
    geometric = {name: penalty for name, penalty in penalties.items() if isinstance(penalty, GeometricPenalty)}
    update = {name: penalty for name, penalty in penalties.items() if isinstance(penalty, UpdatePenalty)}
    return replace(objective, geometric=objective.geometric | geometric, update=objective.update | update, parameter={})


def joined(same: Sequence[Derivatives]) -> Derivatives:
    """Those of the same part, window and task, of different optimizees."""

    def all_of(lists: Any) -> list[float]:
        return [number for numbers in lists for number in numbers]

    estimated = [part.estimated for part in same]
    return replace(
        same[0],
        value=all_of(part.value for part in same),
        true=all_of(part.true for part in same),
        estimated=None if None in estimated else all_of(estimated),
        diverged=sum(part.diverged for part in same),
    )
