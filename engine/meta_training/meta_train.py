"""Meta-training: phi takes a meta-step after every truncation, and is judged on held-out optimizees now and then.

`meta_train` is the loop. `MetaTrainer` is what it drives: each `advance()` does one unit of work (a truncation with its
meta-step, or an evaluation), and between two of them its whole state fits in a checkpoint, from which it goes on bit
for bit. Neither knows of presets, run folders or processes: the job of a run drives a `MetaTrainer`, too.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psutil
import torch
from torch import Tensor

from engine.base import seeds
from engine.base.arguments import named
from engine.base.errors import TrainingError
from engine.base.flat import all_finite, plain_attention, prefixed, under
from engine.base.metrics import Metric, metric
from engine.distributed.parallel import ALONE, ProcessGroup
from engine.evaluation.frozen_unroll import nothing
from engine.meta_training import checks, validation
from engine.meta_training.curriculum import Curriculum
from engine.meta_training.estimators import GradientEstimator
from engine.meta_training.estimators.tbptt import TBPTT, SecondOrder
from engine.meta_training.meta_epoch import MetaEpoch
from engine.meta_training.meta_parameters import MetaParameters
from engine.meta_training.objective import PENALTY_CLASSES, by_name, objective_on, of_kind
from engine.meta_training.partial_gradient import mean_of, norm
from engine.meta_training.unroll import loss_factors
from engine.optimizers.learned.base import START, LearnedOptimizer, Phi, without_start
from engine.penalties.base import Penalty, Reparametrization
from engine.presets.former import todays_objective
from engine.presets.tables import EvaluationSettings, MetaSettings, ObjectiveSettings
from engine.tasks.base import Task, TaskDistribution
from engine.tasks.outside import as_distribution, check_task
from engine.terms import Term

SKIPS_FORGIVEN = 20  # meta-steps before the share of skipped ones is judged
DIVERGED_IN_A_ROW = 100  # meta-epochs that no optimizee survives before the run fails; fewer where it has fewer in all
TASKS_KEPT = 256  # whose objectives are kept
SAVED = ("step", "meta_epoch", "pending", "broken_epochs", "best_step")  # of a trainer, in its checkpoints

Record = dict[str, Any]
"""What a meta-step or an evaluation says: "step", "meta_epoch", and metrics by name."""


@named
def meta_train(
    tasks: Task | Iterable[Task] | TaskDistribution,
    optimizer: LearnedOptimizer,
    penalties: Mapping[str, Penalty] | Iterable[Penalty] = (),
    *,
    estimator: GradientEstimator | None = None,
    objective: ObjectiveSettings | Mapping[str, Any] | None = None,
    terms: Mapping[str, Term] | Iterable[Term] = (),
    settings: MetaSettings | Mapping[str, Any] | None = None,
    evaluation: EvaluationSettings | Mapping[str, Any] | None = None,
    seed: int = 0,
    init_phi: Phi | None = None,
    on_step: Callable[[Record], object] | None = None,
) -> Phi:
    """Meta-train a learned optimizer, from objects alone; returns the meta-parameters that did best on validation.

    `tasks`: one, several, or a distribution (`engine.Task`, `engine.TaskDistribution`, or anything with their methods).
    `settings` are those of a preset's [meta] table, `objective` those of [objective], `evaluation` those of
    [evaluation]. `estimator` (`engine.estimators`): truncated back-propagation unless another is given; `terms`
    (`engine.terms`) are what else counts of the unroll's end, for estimators that need no derivative. `on_step` is
    told of every meta-step and evaluation, and may raise to end it all. `init_phi`: where to start from in place of
    fresh meta-parameters. Raises ArgumentError, a ValueError, for what does not fit; TrainingError where nothing is
    learned.
    """
    distribution = as_distribution(tasks)
    check_task(distribution.sample(seed))
    trainer = MetaTrainer(
        distribution,
        optimizer,
        penalties,
        estimator=estimator,
        objective=objective,
        terms=terms,
        settings=settings,
        evaluation=evaluation,
        seed=seed,
        init_phi=init_phi,
    )
    checks.check_no_run(trainer.settings)
    while not trainer.finished:
        for record in trainer.advance():
            if on_step is not None:
                on_step(record)
    return trainer.parameters.best


class MetaTrainer:
    """A learned optimizer under meta-training."""

    def __init__(
        self,
        tasks: TaskDistribution,
        optimizer: LearnedOptimizer,
        penalties: Mapping[str, Penalty] | Iterable[Penalty] = (),
        *,
        estimator: GradientEstimator | None = None,
        objective: ObjectiveSettings | Mapping[str, Any] | None = None,
        terms: Mapping[str, Term] | Iterable[Term] = (),
        settings: MetaSettings | Mapping[str, Any] | None = None,
        evaluation: EvaluationSettings | Mapping[str, Any] | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        init_phi: Phi | None = None,
        team: ProcessGroup = ALONE,
    ) -> None:
        """Draw phi, or take `init_phi`; it has device and dtype of the tasks. Raises LregError for what does not fit.

        In a `team` every process has a trainer, and all of them go through the same calls.
        """
        self.tasks = tasks
        self.optimizer = checks.checked_optimizer(optimizer)
        self.penalties = by_name(penalties, "penalty", PENALTY_CLASSES)
        self.terms = by_name(terms, "term", (Term,))
        self.settings = checks.checked_settings("settings", MetaSettings, settings)
        self.evaluation = checks.checked_settings("evaluation", EvaluationSettings, evaluation)
        self.seed = seed
        self.team = team
        task = tasks.sample(seed)
        self.device = device or task.device
        usual = SecondOrder() if self.settings.second_order else TBPTT()
        self.estimator = checks.checked_estimator(estimator or usual).on(self.device)
        if isinstance(objective, Mapping):
            objective = todays_objective(objective)
        self.objective_settings = checks.checked_settings("objective", ObjectiveSettings, objective)
        how = (self.settings, self.objective_settings, self.terms, self.penalties)
        checks.check_together(self.estimator, *how)
        inputs = (self.optimizer, self.penalties, self.terms, self.settings, self.objective_settings)
        on_task = functools.partial(objective_on, *inputs, second_order=self.estimator.second_order)
        self.objective_on = functools.lru_cache(TASKS_KEPT)(on_task)
        held_out = [held_out_task for held_out_task, _ in tasks.held_out(1)]
        checks.check_optimizer(self.optimizer, self.estimator, self.settings, task, held_out)
        fresh = checks.fresh_phi(self.optimizer, task, seeds.derive(seed, "phi"))
        if self.settings.learn_start:
            fresh[START] = task.init_theta(seeds.derive(seed, "start"))
        if init_phi is not None:  # learned initial parameters come along, or not, as these settings say
            init_phi = {**without_start(init_phi), **{k: init_phi.get(k, v) for k, v in fresh.items() if k == START}}
        reparametrizations = of_kind(self.penalties, Reparametrization)
        self.parameters = MetaParameters(self.settings, reparametrizations, fresh, self.device, init_phi)
        self.curriculum = Curriculum(self.settings.stages)
        self.epochs: list[MetaEpoch] = []  # the optimizees under way, the oldest first
        self.step = 0
        self.meta_epoch = 0
        self.pending = "baseline"  # an evaluation that comes next: "baseline", "evaluation", or ""
        self.counts = {"skipped": 0, "diverged": 0, "dropped_terms": 0}
        self.broken_epochs = 0  # meta-epochs in a row that no optimizee survived
        self.improved = False
        self.best_step = 0

    # -- what the loop sees ------------------------------------------------------------------------------------------

    @property
    def phi(self) -> Phi:
        return self.parameters.phi

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics that the tasks measure themselves, as far as held-out ones tell."""
        held_out = self.tasks.held_out(max(1, self.evaluation.optimizees))
        return tuple({metric.name: metric for task, _ in held_out for metric in task.measured}.values())

    @property
    def finished(self) -> bool:
        trained = self.curriculum.ended or self.meta_epoch >= self.settings.epochs
        return trained and not self.epochs and not self.pending

    @property
    def total(self) -> int:
        """Meta-steps of the whole run, as far as one can say: a curriculum may lengthen or end it."""
        if self.curriculum.ended:
            return self.step
        per_epoch = math.ceil(self.curriculum.inner_steps / self._truncation(self.curriculum.inner_steps))
        left = (self.settings.epochs - self.meta_epoch) * per_epoch - sum(epoch.truncations for epoch in self.epochs)
        return self.step + math.ceil(left / max(1, len(self.epochs)))

    @property
    def remark(self) -> str:
        """What should be said of the finished run, if anything."""
        if self.broken_epochs and self.broken_epochs == self.meta_epoch:
            return "every optimizee diverged in every meta-epoch: nothing was learned"
        if self.meta_epoch and self.best_step == 0:
            return "no evaluation beat what meta-training started from: best is the start"
        return ""

    @plain_attention()
    def advance(self, tick: Callable[[], None] = nothing) -> list[dict[str, Any]]:
        """Do one unit of work and return its records. Raises TrainingError when it makes no sense to go on.

        `tick` is called now and then in an evaluation, and may raise: nothing is changed before that is complete.
        """
        self.improved = False
        return [self._evaluate(tick) if self.pending else self._meta_step()]

    def frozen_state(self, checkpoint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The learned optimizer alone, for use: best on validation, as it is now ("last"), or untrained ("initial")."""
        parameters = self.parameters
        phi = {"best": parameters.best, "initial": parameters.initial, "last": parameters.frozen()}[checkpoint]
        step = {"best": self.best_step, "initial": 0, "last": self.step}[checkpoint]
        return prefixed("frozen", phi), {"checkpoint": checkpoint, "step": step}

    @plain_attention()
    def result(self, on_progress: Callable[[str], None]) -> list[dict[str, Any]]:
        """The final comparison, on optimizees never seen: best and untrained learned optimizer, tuned SGD and Adam."""
        phis = {"best": self.parameters.best, "untrained": self.parameters.untrained}
        if self.settings.init_from:
            phis["start"] = self.parameters.initial
        horizon = self.curriculum.inner_steps
        return validation.compare(self.tasks, self.optimizer, phis, horizon, self.evaluation, on_progress, self.team)

    # -- one meta-step -----------------------------------------------------------------------------------------------

    def _meta_step(self) -> dict[str, Any]:
        began = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        learning_rate = self._learning_rate()
        used, metrics = self.parameters.reparametrize()
        self._begin_meta_epochs(used.get(START))
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in used.items()}
        steps = [self._factors(epoch) for epoch in self.epochs]
        results = [epoch.truncation(leaves, factors) for epoch, factors in zip(self.epochs, steps, strict=True)]
        gradient, measured = mean_of(results)
        gradient, shares = self.parameters.pull_back(used, gradient)
        metrics |= measured | shares
        for name in ("diverged", "dropped_terms"):
            self.counts[name] += int(metrics.pop(name))
        counted = metrics.pop("counted_terms")  # none: every optimizee broke at once, and nothing was learned
        grad_norm = norm(gradient)
        sound = all_finite([*gradient.values(), metrics["meta_loss"]]) & (counted > 0)
        self._take_meta_step(gradient, sound, learning_rate)
        if self._averages:
            self.parameters.add_to_average()
        record: dict[str, Any] = {"step": self.step, "meta_epoch": self.meta_epoch}
        values = {name: float(value) for name, value in metrics.items()}
        of_penalties = {name for name in values if metric(name).kind in ("penalty", "share", "term")}
        # a penalty that nowhere counted has no value
        record |= {name: value for name, value in values.items() if math.isfinite(value) or name not in of_penalties}
        record |= {"meta_grad_norm": float(grad_norm), "learning_rate": learning_rate, **self.counts}
        coordinate_steps = sum(len(part) * epoch.coordinates for epoch, part in zip(self.epochs, steps, strict=True))
        record |= self._speed(sum(map(len, steps)), coordinate_steps, time.perf_counter() - began)
        for epoch in list(self.epochs):
            self._end_meta_epoch_if_due(epoch)
        return record

    def _begin_meta_epochs(self, start: Tensor | None) -> None:
        """Begin what is due: one meta-epoch after another, or `meta.staggered` of them side by side, spread out.

        `start`: learned initial parameters, [P].
        """
        horizon, begun = self.curriculum.inner_steps, self.meta_epoch + len(self.epochs)
        newest = self.epochs[-1].inner_step if self.epochs else horizon
        spread_out = newest * self.settings.staggered >= horizon
        if len(self.epochs) < self.settings.staggered and spread_out and begun < self.settings.epochs:
            self.epochs.append(self._new_epoch(begun, horizon).begin(self.settings.meta_batch, start))

    def _truncation(self, horizon: int) -> int:
        """Inner steps between two meta-steps."""
        return horizon if self.estimator.whole_unrolls else self.settings.truncation

    def _factors(self, epoch: MetaEpoch) -> list[float]:
        """The weights of the losses along the next truncation; the last one of an unroll may be shorter."""
        steps = min(self._truncation(epoch.horizon), epoch.horizon - epoch.inner_step)
        return loss_factors(self.settings, self.objective_settings, epoch.inner_step, steps, epoch.horizon)

    def _take_meta_step(self, gradient: Phi, sound: Tensor, learning_rate: float) -> None:
        """Clip and step. A meta-gradient that is not sound is skipped and counted; too many of them are an error."""
        self.step += 1
        if not bool(sound):
            self.counts["skipped"] += 1
            if self.step >= SKIPS_FORGIVEN and self.counts["skipped"] > self.settings.max_skipped * self.step:
                raise TrainingError(
                    f"the meta-gradient was not finite, or every unroll broke at once, in {self.counts['skipped']} of "
                    f"{self.step} meta-steps (meta.max_skipped = {self.settings.max_skipped:g}): "
                    "lower meta.learning_rate, meta.truncation or the penalties' weights"
                )
            return
        if not self.parameters.step(gradient, learning_rate):
            raise TrainingError(
                f"the meta-parameters are not finite after meta-step {self.step}: lower meta.learning_rate "
                f"(it is {self.settings.learning_rate:g})"
            )

    @property
    def _progress(self) -> float:
        """The share of the meta-epochs that is done."""
        taken = sum(epoch.inner_step / epoch.horizon for epoch in self.epochs)
        return (self.meta_epoch + taken) / max(1, self.settings.epochs)

    @property
    def _averages(self) -> bool:
        """Whether the iterates of now are to be in the mean that is the result."""
        return self.settings.average > 0 and self._progress > 1 - self.settings.average

    def _learning_rate(self) -> float:
        progress = self._progress
        factors = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
        return self.settings.learning_rate * factors[self.settings.schedule]

    def _speed(self, steps: int, coordinate_steps: int, seconds: float) -> dict[str, float]:
        times = max(1, self.estimator.particles)
        inner_steps = steps * self.settings.meta_batch * times
        on_gpu = self.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self.device) if on_gpu else psutil.Process().memory_info().rss
        return {
            "inner_steps_per_s": inner_steps / seconds,
            "coordinate_steps_per_s": coordinate_steps * times / seconds,
            "memory_bytes": memory,
        }

    def _new_epoch(self, number: int, horizon: int) -> MetaEpoch:
        inputs = (self.tasks, self.objective_on, self.estimator, self.settings)
        return MetaEpoch(*inputs, seed=self.seed, number=number, horizon=horizon, team=self.team)

    def _end_meta_epoch_if_due(self, epoch: MetaEpoch) -> None:
        """The end: all inner steps taken, or every optimizee diverged."""
        survived = epoch.survivors > 0
        if survived and epoch.inner_step < epoch.horizon:
            return
        self.epochs.remove(epoch)
        self.broken_epochs = 0 if survived else self.broken_epochs + 1
        if self.broken_epochs >= max(SKIPS_FORGIVEN, min(DIVERGED_IN_A_ROW, self.settings.epochs)):
            raise TrainingError(
                f"every optimizee diverged in each of the last {self.broken_epochs} meta-epochs: lower "
                "meta.learning_rate or optimizer.output_scale, or try another seed"
            )
        self.meta_epoch += 1
        if self._averages and self.meta_epoch >= self.settings.epochs and not self.epochs:
            self.parameters.take_average()
        if self.meta_epoch % self.evaluation.every == 0 or self.meta_epoch >= self.settings.epochs:
            self.pending = "evaluation"

    # -- evaluation --------------------------------------------------------------------------------------------------

    def _evaluate(self, tick: Callable[[], None]) -> dict[str, Any]:
        inner_steps = self.curriculum.evaluated_steps
        self.parameters.check_alike(self.team, self.step)
        how = (inner_steps, self.evaluation, tick, self.team)
        metrics = validation.validate(self.tasks, self.optimizer, self.parameters.frozen(), *how)
        loss = metrics["validation_loss"]
        assert loss is not None
        kind, self.pending = self.pending, ""
        record = {"step": self.step, "meta_epoch": self.meta_epoch, "stage": self.curriculum.stage}
        if kind == "baseline":
            self.curriculum.baseline(loss)
            self.improved = self.step == 0
        else:
            verdict = self.curriculum.judge(loss)
            ends = self.meta_epoch >= self.settings.epochs and not self.epochs
            self.improved = ends if self.settings.average else verdict == "improved"
            if verdict == "next stage":
                self.parameters.go_back_to_best()
                self.pending = "baseline"
        if self.improved:
            self.parameters.keep_as_best()
            self.best_step = self.step
        return {**record, "evaluated_steps": inner_steps, **metrics}

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that meta-training goes on from: tensors by name, and values that JSON can hold.

        In a team it is whole at rank 0 only, and can be gone on from by any number of processes.
        """
        tensors, epochs = self.parameters.state(), []
        for epoch in self.epochs:
            epoch_tensors, groups = epoch.state()
            tensors |= prefixed(f"epochs/{epoch.number}", epoch_tensors)
            epochs.append({"number": epoch.number, "horizon": epoch.horizon, "groups": groups})
        values = {name: getattr(self, name) for name in SAVED} | {"counts": dict(self.counts), "epochs": epochs}
        return tensors, values | {"averaged": self.parameters.averaged, "curriculum": self.curriculum.to_json()}

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from a state of the same preset. Raises KeyError, ValueError or RuntimeError where it does not fit."""
        for name in SAVED:
            setattr(self, name, values[name])
        self.counts = dict(values["counts"])
        self.curriculum = Curriculum.from_json(values["curriculum"])
        self.parameters.averaged = values.get("averaged", 0)
        self.parameters.load_state({name: tensor for name, tensor in tensors.items() if not name.startswith("epoch/")})
        moved = {name: tensor.to(self.device) for name, tensor in tensors.items() if name.startswith("epoch")}
        self.epochs = []
        for facts in values.get("epochs", ()):
            epoch = self._new_epoch(facts["number"], facts["horizon"])
            self.epochs.append(epoch.load_state(under(f"epochs/{epoch.number}", moved), facts["groups"]))
        if values.get("epoch"):  # before there could be several under way
            epoch = self._new_epoch(self.meta_epoch, self.curriculum.inner_steps)
            self.epochs.append(epoch.load_state(under("epoch", moved), values["epoch"]))
