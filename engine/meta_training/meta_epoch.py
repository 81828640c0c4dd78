"""One meta-epoch: `meta_batch` optimizees trained from scratch, each with a task, parameters and batches of its own.

Optimizees that share a task are one flat tensor, [B, P]; there is a group of them for every task that was drawn. A
team of processes shares the optimizees out: then a group holds this process's part, and what they come to is added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from engine.base import seeds
from engine.distributed.parallel import ALONE, ProcessGroup
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import COUNTS, PartialGradient
from engine.meta_training.recording import RunTruncation
from engine.meta_training.unroll import UnrollState, begin, run_truncation
from engine.optimizers.learned.base import Phi
from engine.tasks.task import Stream, Task


@dataclass
class Group:
    """The optimizees of a meta-epoch that share a task."""

    task_index: int
    members: list[int]  # their places in the meta-batch: those of this process
    stream: Stream
    scoring: Stream | None  # batches of loss_batch = validation
    carry: UnrollState


class MetaEpoch:
    """The optimizees under way, and everything random about them. Derived from the meta-seed and the epoch's number."""

    def __init__(
        self,
        tasks: Sequence[Task],
        objectives: Sequence[Objective],
        *,
        seed: int,
        number: int,
        random_scaling: float = 0.0,
        team: ProcessGroup = ALONE,
        run_truncation: RunTruncation = run_truncation,
    ) -> None:
        """An epoch without optimizees: `begin` draws them, `load_state` takes up those of a checkpoint."""
        self.tasks = tasks
        self.objectives = objectives
        self.seed = seed
        self.number = number
        self.random_scaling = random_scaling
        self.team = team
        self.run_truncation = run_truncation
        self.places: dict[int, list[int]] = {}  # in the meta-batch, by the index of their task, of all processes
        self.groups: list[Group] = []
        self.survivors = 0  # optimizees that the last truncation left undiverged, of all processes

    def begin(self, meta_batch: int) -> MetaEpoch:
        """Draw a task for every optimizee, and its parameters and batches, each from a seed of its own."""
        generator = Generator().manual_seed(seeds.derive(self.seed, "tasks", self.number))
        drawn = torch.randint(len(self.tasks), (meta_batch,), generator=generator).tolist()
        for task_index in sorted(set(drawn)):
            self.places[task_index] = [place for place, task in enumerate(drawn) if task == task_index]
        self.groups = [self._group(task_index, members) for task_index, members in self._own().items()]
        return self

    def _own(self) -> dict[int, list[int]]:
        """The places of this process, by task: they are dealt out so that every process has its part of every task."""
        everything = [(task_index, place) for task_index, places in self.places.items() for place in places]
        own: dict[int, list[int]] = {}
        for task_index, place in self.team.share(everything):
            own.setdefault(task_index, []).append(place)
        return own

    @property
    def inner_step(self) -> int:
        return self.groups[0].carry.inner_step

    @property
    def truncations(self) -> int:
        return self.groups[0].carry.truncations

    @property
    def coordinates(self) -> int:
        """N, how many coordinates the learned optimizer sees in an inner step, in all processes."""
        return sum(len(places) * self.tasks[task_index].parameters for task_index, places in self.places.items())

    def _alive(self) -> int:
        return sum(int(group.carry.alive.sum()) for group in self.groups)

    def truncation(self, phi: Phi, factors: Sequence[float]) -> tuple[Phi, dict[str, Tensor]]:
        """Take len(factors) inner steps; return the meta-gradient and the figures, means over all optimizees."""
        before = self._alive()
        found = {group.task_index: self._advance(group, phi, factors) for group in self.groups}
        counts = torch.tensor([before, self._alive()], dtype=torch.float64)
        if self.team.size > 1:
            found, counts = self._added_up(found, counts, phi)
        self.survivors = int(counts[1])
        gradient: Phi = {name: torch.zeros_like(tensor) for name, tensor in phi.items()}
        figures: list[tuple[float, dict[str, Tensor]]] = []
        meta_batch = sum(len(places) for places in self.places.values())
        for task_index, partial in found.items():
            part, shown = partial.meta_gradient(self.objectives[task_index], phi, self.inner_step - 1)
            share = partial.optimizees / meta_batch
            gradient = {name: gradient[name] + share * part[name] for name in gradient}
            figures.append((share, shown))
        return gradient, {**_together(figures), "diverged": counts[0] - counts[1]}

    def _added_up(
        self, found: Mapping[int, PartialGradient], counts: Tensor, phi: Phi
    ) -> tuple[dict[int, PartialGradient], Tensor]:
        """The partial gradients of all processes, one for every task, and their counts."""
        nothing, packed = PartialGradient(0, {}, {}), [counts]
        for task_index in self.places:
            packed.append(found.get(task_index, nothing).pack(self.objectives[task_index], phi))
        counts, *sums = self.team.add_up(torch.cat(packed)).split([len(part) for part in packed])
        partials = {}
        for (task_index, places), summed in zip(self.places.items(), sums, strict=True):
            partials[task_index] = PartialGradient.unpack(summed, len(places), self.objectives[task_index], phi)
        return partials, counts

    def _advance(self, group: Group, phi: Phi, factors: Sequence[float]) -> PartialGradient:
        window = group.stream.draw(len(factors))
        scoring = group.scoring.draw(len(factors)) if group.scoring else None
        objective = self.objectives[group.task_index]
        randomness = self._randomness(group) if objective.update else ()
        partial, _, group.carry = self.run_truncation(
            objective, phi, group.carry, window, factors, randomness, scoring=scoring
        )
        return partial

    def _randomness(self, group: Group) -> list[Generator]:
        """Random numbers for the penalties in the next truncation, for each optimizee its own."""
        device, purpose = group.carry.theta.device, f"penalties/{group.carry.inner_step}"
        return [Generator(device).manual_seed(self._seed(purpose, place)) for place in group.members]

    def _group(self, task_index: int, members: list[int]) -> Group:
        task, objective = self.tasks[task_index], self.objectives[task_index]
        theta = torch.stack([task.init_theta(self._seed("theta", place)) for place in members])
        stream, scoring = self._streams(task_index, members)
        first = stream.draw(1)[0] if objective.loss_batch == "next" else None
        carry = begin(objective, theta, first, scaling=self._scaling(theta, members))
        return Group(task_index, members, stream, scoring, carry)

    def _streams(self, task_index: int, members: list[int]) -> tuple[Stream, Stream | None]:
        task = self.tasks[task_index]
        stream = task.stream([self._seed("batches", place) for place in members])
        if self.objectives[task_index].loss_batch != "validation":
            return stream, None
        return stream, task.stream([self._seed("scoring", place) for place in members], "validation")

    def _seed(self, purpose: str, place: int) -> int:
        return seeds.derive(self.seed, "meta-training", self.number, place, purpose)

    def _scaling(self, theta: Tensor, members: list[int]) -> Tensor | None:
        """Random coordinate scaling exp(U(-r, r)), shape [B, P] (Lv, Jiang & Li 2017, arXiv:1703.03633, sec. 4.2)."""
        if not self.random_scaling:
            return None
        generators = [Generator().manual_seed(self._seed("scaling", place)) for place in members]
        uniform = torch.stack([torch.rand(theta.shape[1], generator=generator) for generator in generators])
        return ((2 * uniform - 1) * self.random_scaling).exp().to(theta)

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Everything to go on from: tensors by name, and the facts of each group. Of all processes, at rank 0."""
        groups = [(group.task_index, group.members, _tensors(group)) for group in self.groups]
        if self.team.size > 1:
            on_cpu = [(index, members, _moved(own, "cpu")) for index, members, own in groups]
            groups = _merged(self.places, [group for part in self.team.collect(on_cpu) for group in part])
        counts = {"inner_step": self.inner_step, "truncations": self.truncations}
        tensors: dict[str, Tensor] = {}
        facts: list[dict[str, Any]] = []
        for index, (task_index, members, own) in enumerate(groups):
            tensors |= prefixed(str(index), own)
            facts.append({"task_index": task_index, "members": members, **counts})
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Sequence[Mapping[str, Any]]) -> MetaEpoch:
        """Take up the optimizees of a state. Raises KeyError, RuntimeError or RunError where it does not fit."""
        self.places = {fact["task_index"]: list(fact["members"]) for fact in facts}
        own = self._own()
        for index, fact in enumerate(facts):
            members = own.get(fact["task_index"])
            if members:
                rows = [fact["members"].index(place) for place in members]
                self.groups.append(
                    self._restored({**fact, "members": members}, _rows(under(str(index), tensors), rows))
                )
        return self

    def _restored(self, fact: Mapping[str, Any], tensors: dict[str, Tensor]) -> Group:
        task_index, members = fact["task_index"], list(fact["members"])
        stream, scoring = self._streams(task_index, members)
        stream.load_state(tensors["stream"])
        if scoring is not None:
            scoring.load_state(tensors["scoring"])
        carry = UnrollState(
            theta=tensors["theta"],
            state=under("state", tensors),
            grad=tensors["grad"],
            first_loss=tensors["first_loss"],
            alive=tensors["alive"],
            inner_step=fact["inner_step"],
            truncations=fact["truncations"],
            scaling=tensors.get("scaling"),
        )
        return Group(task_index, members, stream, scoring, carry)


def _together(found: list[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The figures of all groups: counts add up, everything else is a mean over the groups that have the figure."""
    figures = {}
    for name in dict.fromkeys(name for _, group in found for name in group):
        values = torch.stack([group[name] for _, group in found if name in group])
        if name in COUNTS:
            figures[name] = values.sum()
        else:
            shares = values.new_tensor([share for share, group in found if name in group])
            there = values.isfinite() if name not in ("meta_loss", "update_norm") else torch.ones_like(values).bool()
            figures[name] = torch.where(there, shares * values, 0.0).sum() / (shares * there).sum()
    return figures


def _merged(
    places: Mapping[int, list[int]], parts: Sequence[tuple[int, list[int], dict[str, Tensor]]]
) -> list[tuple[int, list[int], dict[str, Tensor]]]:
    """Groups that are whole from the parts of them that the processes have. No parts, as not at rank 0: no groups."""
    groups = []
    for task_index, members in places.items() if parts else ():
        found = [(own, tensors) for index, own, tensors in parts if index == task_index]
        there = [place for own, _ in found for place in own]
        together = {
            name: tensor if tensor.ndim == 0 else torch.cat([tensors[name] for _, tensors in found])
            for name, tensor in found[0][1].items()
        }
        groups.append((task_index, members, _rows(together, [there.index(place) for place in members])))
    return groups


def _rows(tensors: Mapping[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """Some optimizees' tensors; what belongs to no single one, such as the time, has no dimensions."""
    return {name: tensor if tensor.ndim == 0 else tensor[rows] for name, tensor in tensors.items()}


def _moved(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _tensors(group: Group) -> dict[str, Tensor]:
    carry = group.carry
    tensors = {name: getattr(carry, name) for name in ("theta", "grad", "first_loss", "alive")}
    tensors |= prefixed("state", carry.state) | {"stream": group.stream.state()}
    if group.scoring is not None:
        tensors["scoring"] = group.scoring.state()
    return tensors if carry.scaling is None else tensors | {"scaling": carry.scaling}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with "prefix/" before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with "prefix/", without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
