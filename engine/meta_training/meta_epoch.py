"""One meta-epoch: `meta_batch` optimizees trained from scratch, each with a task, parameters and batches of its own.

Optimizees that share a task are one flat tensor, [B, P]; there is a group of them for every task that was drawn. A
process group shares the optimizees out: then a group holds this process's part, and what they come to is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from engine.base import seeds
from engine.base.errors import RunError
from engine.base.flat import Batch, prefixed, tree_map, under
from engine.distributed.parallel import ALONE, ProcessGroup
from engine.evaluation.frozen_unroll import DRAWN_AT_ONCE
from engine.meta_training.estimators.base import GradientEstimator
from engine.meta_training.inner_steps import Inputs, UnrollState
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import PartialGradient
from engine.optimizers.learned.base import Phi
from engine.presets.tables import ON_FRESH_BATCHES, MetaSettings
from engine.tasks.base import Batches, Layout, Stream, Task, TaskDistribution


@dataclass
class Group:
    """The optimizees of a meta-epoch that share a task."""

    index: int  # of the group among all
    task: Task
    objective: Objective
    members: list[int]  # their places in the meta-batch: those of this process
    stream: Stream
    scoring: Stream | None  # batches of loss_batch = validation
    carry: UnrollState


class PrefetchedBatches:
    """The batches of the next inner steps of a stream, a few at a time and in order."""

    def __init__(self, stream: Stream, steps: int) -> None:
        self._stream, self._steps = stream, steps
        self._first, self._drawn = 0, stream.draw(min(DRAWN_AT_ONCE, steps))

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        if step >= self._first + len(self._drawn):
            self._first += len(self._drawn)
            self._drawn = self._stream.draw(min(DRAWN_AT_ONCE, self._steps - self._first))
        return self._drawn[step - self._first]


class MetaEpoch:
    """The optimizees under way, and everything random about them. Derived from the meta-seed and the epoch's number."""

    def __init__(
        self,
        tasks: TaskDistribution,
        objective_on: Callable[[Task], Objective],
        estimator: GradientEstimator,
        settings: MetaSettings,
        *,
        seed: int,
        number: int,
        horizon: int,
        team: ProcessGroup = ALONE,
    ) -> None:
        """An epoch without optimizees: `begin` draws them, `load_state` takes up those of a checkpoint."""
        self.distribution, self.objective_on = tasks, objective_on
        self.estimator, self.settings = estimator, settings
        self.seed, self.number, self.horizon = seed, number, horizon
        self.team = team
        self.tasks: list[Task] = []  # of each group, in all processes
        self.places: list[list[int]] = []  # in the meta-batch, of each group
        self.groups: list[Group] = []  # with optimizees of this process
        self.start: Tensor | None = None
        self.survivors = 0  # optimizees that the last truncation left undiverged, of all processes

    def begin(self, meta_batch: int, start: Tensor | None = None) -> MetaEpoch:
        """Draw a task for every optimizee, and its parameters and batches, each from a seed of its own.

        `start`: initial parameters, [P], of all of them instead; or [B, P], where they have one task.
        """
        self.start = start
        places: dict[Task, list[int]] = {}
        for member in range(meta_batch):
            places.setdefault(self.distribution.sample(self._seed("task", member)), []).append(member)
        self.tasks, self.places = list(places), list(places.values())
        self.groups = [self._group(index, members) for index, members in self._mine().items()]
        return self

    def first_batches(self) -> list[Batch]:
        """The batch of the first inner step, of each group."""
        return [self._streams(group.task, group.objective, group.members)[0].draw(1)[0] for group in self.groups]

    def _mine(self) -> dict[int, list[int]]:
        """This process's places, by group: they are dealt out so that every process has its part of every task."""
        everything = [(index, member) for index, places in enumerate(self.places) for member in places]
        mine: dict[int, list[int]] = {}
        for index, member in self.team.share(everything):
            mine.setdefault(index, []).append(member)
        return mine

    @property
    def inner_step(self) -> int:
        return self.groups[0].carry.inner_step

    @property
    def truncations(self) -> int:
        return self.groups[0].carry.truncations

    @property
    def coordinates(self) -> int:
        """N, how many coordinates the learned optimizer sees in an inner step, in all processes."""
        return sum(len(places) * task.parameters for task, places in zip(self.tasks, self.places, strict=True))

    def _alive(self) -> int:
        return sum(int(group.carry.alive.sum()) for group in self.groups)

    def truncation(self, phi: Phi, factors: Sequence[float]) -> tuple[Phi, dict[str, Tensor]]:
        """Take len(factors) inner steps; return the meta-gradient and the metrics, means over all optimizees."""
        before = self._alive()
        noise_seeds = [self._seed("noise", truncation) for truncation in range(self.truncations + 1)]
        partials = {group.index: self.advance(group, phi, factors, noise_seeds) for group in self.groups}
        counts = torch.tensor([before, self._alive()], dtype=torch.float64)
        if self.team.size > 1:
            partials, counts = self._added_up(partials, counts, phi)
        self.survivors = int(counts[1])
        parts = [(self.objective_on(self.tasks[index]), partial) for index, partial in partials.items()]
        gradient, metrics = self.estimator.combine(parts, phi, self.inner_step - 1, noise_seeds)
        return gradient, {**metrics, "diverged": counts[0] - counts[1]}

    def _added_up(
        self, partials: Mapping[int, PartialGradient], counts: Tensor, phi: Phi
    ) -> tuple[dict[int, PartialGradient], Tensor]:
        """The partial gradients of all processes, one for every group, and their counts."""
        nothing, packed = PartialGradient(0, {}, {}), [counts]
        objectives = [self.objective_on(task) for task in self.tasks]
        for index, objective in enumerate(objectives):
            packed.append(partials.get(index, nothing).pack(objective, phi, self.estimator.particles))
        counts, *sums = self.team.add_up(torch.cat(packed)).split([len(part) for part in packed])
        unpacked = {
            index: PartialGradient.unpack(summed, len(places), objective, phi, self.estimator.particles)
            for index, (places, summed, objective) in enumerate(zip(self.places, sums, objectives, strict=True))
        }
        return unpacked, counts

    def advance(
        self, group: Group, phi: Phi, factors: Sequence[float], noise_seeds: Sequence[int] = ()
    ) -> PartialGradient:
        """A group's inner steps of a truncation, and what they contribute."""
        objective, steps = group.objective, len(factors)
        ends = group.carry.inner_step + steps >= self.horizon
        inputs = Inputs(
            batches=self._drawn(group.stream, steps),
            factors=factors,
            randomness=self._randomness(group) if objective.update else (),
            scoring=self._drawn(group.scoring, steps) if group.scoring else None,
            ends=ends,
            meta_epoch=self.number,
            final=self._final(group) if ends and objective.settings.loss in ON_FRESH_BATCHES else None,
            noise_seeds=noise_seeds,
        )
        partial, group.carry = self.estimator.estimate(objective, phi, group.carry, inputs)
        return partial

    def _drawn(self, stream: Stream, steps: int) -> Batches:
        """Batches of the next inner steps: for whole unrolls, which may be long, drawn as they are needed."""
        return PrefetchedBatches(stream, steps) if self.estimator.whole_unrolls else stream.draw(steps)

    def _final(self, group: Group) -> Batches:
        """Fresh batches that the loss at the unroll's end is measured on."""
        settings = group.objective.settings
        split = "validation" if settings.loss == "validation" else "train"
        stream = group.task.batches([self._seed("final", member) for member in group.members], split)
        return stream.draw(settings.batches)

    def _randomness(self, group: Group) -> list[Generator]:
        """Random numbers for the penalties in the next truncation, for each optimizee its own."""
        device, purpose = group.carry.theta.device, f"penalties/{group.carry.inner_step}"
        return [Generator(device).manual_seed(self._seed(purpose, member)) for member in group.members]

    def _group(self, index: int, members: list[int]) -> Group:
        task, objective = self._seen(index, members)
        if self.start is None:
            theta = torch.stack([task.init_theta(self._seed("theta", member)) for member in members])
        else:
            theta = self.start.expand(len(members), -1)
        stream, scoring = self._streams(task, objective, members)
        first = stream.draw(1)[0] if objective.loss_batch == "next" else None
        scaling = self._scaling(theta, members, task.layout)
        carry = self.estimator.begin(objective, theta, first, scaling=scaling, horizon=self.horizon)
        return Group(index, task, objective, members, stream, scoring, carry)

    def _seen(self, index: int, members: list[int]) -> tuple[Task, Objective]:
        """A task as some of the optimizees see it, and the objective on it."""
        data_seeds = [self._seed("episode", member) for member in members]
        task = self.tasks[index].of(data_seeds)
        return task, self.objective_on(self.tasks[index]).of(task, data_seeds)

    def _streams(self, task: Task, objective: Objective, members: list[int]) -> tuple[Stream, Stream | None]:
        stream = task.batches([self._seed("batches", member) for member in members], "train")
        if objective.loss_batch != "validation":
            return stream, None
        return stream, task.batches([self._seed("scoring", member) for member in members], "validation")

    def _seed(self, purpose: str, member: int) -> int:
        return seeds.derive(self.seed, "meta-training", self.number, member, purpose)

    def _scaling(self, theta: Tensor, members: list[int], layout: Layout) -> Tensor | None:
        """Random scales exp(U(-r, r)), shape [B, P], one for each optimizee, for each of its tensors or coordinates.

        Coordinates: Lv, Jiang & Li 2017, arXiv:1703.03633, sec. 4.2; all three: Metz et al. 2022, arXiv:2211.09760.
        """
        if not self.settings.random_scaling:
            return None
        sizes = {"coordinate": (1,) * layout.size, "tensor": layout.sizes, "network": (layout.size,)}
        counts = torch.tensor(sizes[self.settings.random_scaling_of])
        generators = [Generator().manual_seed(self._seed("scaling", member)) for member in members]
        uniform = torch.stack([torch.rand(len(counts), generator=generator) for generator in generators])
        scales = ((2 * uniform - 1) * self.settings.random_scaling).exp().repeat_interleave(counts, 1)
        return scales.to(theta)

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Everything to go on from: tensors by name, and the facts of each group. Of all processes, at rank 0."""
        groups = [(group.index, group.members, _tensors(group)) for group in self.groups]
        if self.team.size > 1:
            on_cpu = [(index, members, tree_map(Tensor.cpu, tensors)) for index, members, tensors in groups]
            groups = _merged(self.places, [group for part in self.team.collect(on_cpu) for group in part])
        carry = self.groups[0].carry
        counts = {"inner_step": carry.inner_step, "truncations": carry.truncations, **carry.facts()}
        tensors: dict[str, Tensor] = {}
        facts: list[dict[str, Any]] = []
        for position, (_, members, group_tensors) in enumerate(groups):
            tensors |= prefixed(str(position), group_tensors)
            facts.append({"members": members, **counts, "horizon": self.horizon})
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Sequence[Mapping[str, Any]]) -> MetaEpoch:
        """Take up the optimizees of a state. Raises KeyError, RuntimeError or RunError where it does not fit."""
        self.places = [list(fact["members"]) for fact in facts]
        self.tasks = [self._task_of(fact) for fact in facts]
        mine = self._mine()
        for index, fact in enumerate(facts):
            if members := mine.get(index):
                rows = [fact["members"].index(member) for member in members]
                self.groups.append(self._restored(index, members, fact, _rows(under(str(index), tensors), rows)))
        return self

    def _task_of(self, fact: Mapping[str, Any]) -> Task:
        """The task of a group: drawn again; version 0.1 noted which one of the preset's it was."""
        if "task_index" in fact:
            return self.distribution.held_out(1)[fact["task_index"]][0]
        drawn = [self.distribution.sample(self._seed("task", member)) for member in fact["members"]]
        if any(task != drawn[0] for task in drawn):
            raise RunError("optimizees that shared a task would not share it now: is it the same task distribution?")
        return drawn[0]

    def _restored(self, index: int, members: list[int], fact: Mapping[str, Any], tensors: dict[str, Tensor]) -> Group:
        task, objective = self._seen(index, members)
        stream, scoring = self._streams(task, objective, members)
        stream.load_state(tensors["stream"])
        if scoring is not None:
            scoring.load_state(tensors["scoring"])
        carry = self.estimator.restore(tensors, fact)
        return Group(index, task, objective, members, stream, scoring, carry)


def _merged(
    places: Sequence[list[int]], parts: Sequence[tuple[int, list[int], dict[str, Tensor]]]
) -> list[tuple[int, list[int], dict[str, Tensor]]]:
    """Groups that are whole from the parts of them that the processes have. No parts, as not at rank 0: no groups."""
    groups = []
    for index, members in enumerate(places) if parts else ():
        of_group = [(part_members, tensors) for at, part_members, tensors in parts if at == index]
        gathered = [member for part_members, _ in of_group for member in part_members]
        together = {
            name: tensor if tensor.ndim == 0 else torch.cat([tensors[name] for _, tensors in of_group])
            for name, tensor in of_group[0][1].items()
        }
        groups.append((index, members, _rows(together, [gathered.index(member) for member in members])))
    return groups


def _rows(tensors: Mapping[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """Some optimizees' tensors; what belongs to no single one, such as the time, has no dimensions."""
    return {name: tensor if tensor.ndim == 0 else tensor[rows] for name, tensor in tensors.items()}


def _tensors(group: Group) -> dict[str, Tensor]:
    tensors = group.carry.tensors() | {"stream": group.stream.state()}
    return tensors if group.scoring is None else tensors | {"scoring": group.scoring.state()}
