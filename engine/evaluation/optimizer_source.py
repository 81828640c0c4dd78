"""Where an evaluation's optimizer comes from: a run's checkpoint, its untrained beginning, or a tuned baseline."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator

from engine.base import seeds
from engine.evaluation.frozen import load_learned_optimizer
from engine.evaluation.frozen_unroll import UpdateChange
from engine.evaluation.transfer import ProbeSettings, Report, at_once, evaluate_baseline, evaluate_each
from engine.evaluation.transfer_plan import UNTRAINED, Planned
from engine.evaluation.tuning import tune
from engine.evaluation.update_rule import describe
from engine.optimizers.baselines import BASELINES, Baseline
from engine.optimizers.learned.base import LearnedOptimizer, Phi, from_table
from engine.penalties.base import PENALTIES, Reparametrization
from engine.presets.preset import LATER, Preset
from engine.runs.reader import RunReader
from engine.tasks.base import Task

TUNING_SEEDS = 3
UPDATE_RULE = ("std", "max", "lipschitz")
LARGEST_STATE = 2**30  # numbers that the states of all optimizees may hold together
CPU_TOGETHER = 2**18  # parameters of optimizees under several changes side by side: with more, caches overflow


class Source(Protocol):
    """An optimizer that can be evaluated."""

    @property
    def digest(self) -> str:
        """Stands for the optimizer in an evaluation's identity."""
        ...

    def at_once(self, task: Task) -> int:
        """How many optimizees are trained side by side, and lost together when they are interrupted."""
        ...

    def together(self, task: Task) -> int:
        """The same of optimizees under several scales and weight decays."""
        ...

    def prepare(
        self, task: Task, before: Mapping[str, Any], *, tick: Callable[[], None], report: Report
    ) -> dict[str, Any]:
        """What has to be found out before anything is evaluated; `before` is what is known of the evaluation."""
        ...

    def evaluate(
        self,
        items: Sequence[Planned],
        task: Task,
        numbers: Sequence[int],
        before: Mapping[str, Any],
        *,
        tick: Callable[[], None],
        report: Report,
    ) -> list[dict[str, Any]]:
        """Transfer evaluations of optimizees `numbers` for each of `items`, which differ in scale and weight decay
        alone; `before` holds what `prepare` found.
        """
        ...


def source_of(item: Planned) -> Source:
    """Load what an item of a plan asks for. Raises RunError or PresetError where a run cannot be used."""
    if not item.run:
        return TunedBaseline(item, BASELINES[item.optimizer])
    reader = RunReader(item.run)
    optimizer, phi = untrained(reader) if item.source == UNTRAINED else load_learned_optimizer(reader, item.source)
    return FrozenOptimizer(item, optimizer, phi)


def work_of(item: Planned) -> tuple[int, int]:
    """What an item asks for, in passes of optimizees: to tune it, and to evaluate each optimizee of it. Probes, about
    as many for every item, are left out.
    """
    steps = item.protocol.inner_steps
    if item.run:
        return 0, steps * (2 if item.sam else 1)
    baseline = BASELINES[item.optimizer]
    return sum(map(len, baseline.grid.values())) * TUNING_SEEDS * steps, steps * baseline.passes_per_step


@dataclass(frozen=True)
class FrozenOptimizer:
    """A learned optimizer with meta-parameters that stay as they are."""

    item: Planned
    optimizer: LearnedOptimizer
    phi: Phi

    @property
    def digest(self) -> str:
        digest = hashlib.sha256(_text_of(self.optimizer).encode())
        for name in sorted(self.phi):
            digest.update(name.encode() + self.phi[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def at_once(self, task: Task) -> int:
        held = self.optimizer.init(torch.empty(task.parameters, device="meta"), task.layout)
        return max(1, min(at_once(task), LARGEST_STATE // max(1, sum(tensor.numel() for tensor in held.values()))))

    def together(self, task: Task) -> int:
        most = self.at_once(task)
        return min(most, CPU_TOGETHER // task.parameters) if task.device.type == "cpu" else most

    def _update_rule(self, scale: float) -> dict[str, float | None]:
        """Updates around the zero state, as one number each: docs/method.md#the-update-rule-near-zero.

        They grow with the scale.
        """
        is_of_one_coordinate = not (self.optimizer.uses_layout or self.optimizer.uses_task)
        if not is_of_one_coordinate or self.optimizer.step_scale != "none":
            return dict.fromkeys(UPDATE_RULE)
        view = describe(self.optimizer, self.phi)
        return {name: None if view[name] is None else scale * view[name] for name in UPDATE_RULE}

    def prepare(self, task: Task, before: Mapping[str, Any], **how: Any) -> dict[str, Any]:
        return {}

    def evaluate(
        self, items: Sequence[Planned], task: Task, numbers: Sequence[int], before: Mapping[str, Any], **how: Any
    ) -> list[dict[str, Any]]:
        item = self.item
        phi = {name: tensor.to(task.device, task.dtype) for name, tensor in self.phi.items()}
        changes = [UpdateChange(item.scale, item.weight_decay) for item in items]
        how = {"changes": changes, "sam": item.sam, "marks": item.protocol.marks, **how}
        steps = item.protocol.inner_steps
        evaluations = evaluate_each(task, self.optimizer, phi, numbers, steps, _probe(item), **how)
        return [
            {
                "optimizer": item.optimizer,
                "label": item.label,
                "checkpoint": None if item.source == UNTRAINED else item.source,
                "scale": item.scale,
                "weight_decay": item.weight_decay,
                "sam": item.sam,
                "digest": self.digest[:16],
                "update_rule": self._update_rule(item.scale),
                "passes_per_step": 2 if item.sam else 1,
                **evaluation,
            }
            for item, evaluation in zip(items, evaluations, strict=True)
        ]


def _text_of(optimizer: LearnedOptimizer) -> str:
    """Its kind and settings; of those that came later only what is not the default: evaluations are known by it."""
    settings = [
        f"{item.name}={getattr(optimizer, item.name)!r}"
        for item in dataclasses.fields(optimizer)
        if item.name not in LATER["optimizer"] or getattr(optimizer, item.name) != item.default
    ]
    return f"{type(optimizer).__qualname__}({', '.join(settings)})"


@dataclass(frozen=True)
class TunedBaseline:
    """A hand-designed optimizer at the best settings of its grid for the task; tuned once, on optimizees of its own.

    One that takes several passes a step is tuned for the step at which it has taken as many as the others: there it is
    compared with them.
    """

    item: Planned
    baseline: Baseline

    @property
    def digest(self) -> str:
        several = self.baseline.passes_per_step > 1  # settings were once chosen at the last step: those are others
        return repr(sorted(self.baseline.grid.items())) + (", tuned at equal passes" if several else "")

    @property
    def same_passes(self) -> int:
        """The inner step at which it has taken as many passes as the others at their last."""
        return max(1, self.item.protocol.inner_steps // self.baseline.passes_per_step)

    def at_once(self, task: Task) -> int:
        return at_once(task)

    def prepare(self, task: Task, before: Mapping[str, Any], **how: Any) -> dict[str, Any]:
        if all(isinstance(before.get(name), float) for name in self.baseline.grid):
            return {}
        tuned = tune(task, self.baseline, range(TUNING_SEEDS), self.same_passes, **how)
        return {**tuned.values, "at_edge": list(tuned.at_edge)}

    def together(self, task: Task) -> int:
        return self.at_once(task)

    def evaluate(
        self, items: Sequence[Planned], task: Task, numbers: Sequence[int], before: Mapping[str, Any], **how: Any
    ) -> list[dict[str, Any]]:
        steps = self.item.protocol.inner_steps
        values = {name: before[name] for name in self.baseline.grid}
        marks = (*self.item.protocol.marks, self.same_passes)
        facts = evaluate_baseline(task, self.baseline, values, numbers, steps, _probe(self.item), marks=marks, **how)
        return [{**facts, "at_edge": before.get("at_edge", []), "tuned_at": self.same_passes}]


def untrained(reader: RunReader) -> tuple[LearnedOptimizer, Phi]:
    """A run's learned optimizer with the meta-parameters that its meta-seed draws: the control of what was learned."""
    preset = reader.preset()
    optimizer = from_table(preset["optimizer"])
    phi = optimizer.init_phi(Generator().manual_seed(seeds.derive(preset.seed, "phi")))
    return optimizer, _reparametrized(phi, preset)


def _reparametrized(phi: Phi, preset: Preset) -> Phi:
    for name, values in preset["penalty"].items():
        penalty = PENALTIES.create(name, **values)
        if isinstance(penalty, Reparametrization):
            phi = penalty.apply(phi, penalty.init(phi))[0]
    return phi


def _probe(item: Planned) -> ProbeSettings:
    protocol = item.protocol
    return ProbeSettings(
        radii=protocol.radii,
        adaptive_radius=protocol.adaptive_radius,
        examples=protocol.examples,
        restarts=protocol.restarts,
        ascent_steps=protocol.ascent_steps,
        precision=protocol.precision,
        extended=protocol.extended,
    )
