"""One meta-epoch: `meta_batch` optimizees trained from scratch, each with a task, parameters and batches of its own.

Optimizees that share a task are one flat tensor, [B, P]; there is a group of them for every task that was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from engine import seeds
from engine.learned_optimizers.base import Phi
from engine.tasks import Stream, Task
from engine.unroll import Carry, MetaGradient, Objective, begin, truncation

COUNTS = ("dropped_terms", "counted_terms")


@dataclass
class Group:
    """The optimizees of a meta-epoch that share a task."""

    task_index: int
    members: list[int]  # their places in the meta-batch
    stream: Stream
    scoring: Stream | None  # batches of loss_batch = validation
    carry: Carry


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
    ) -> None:
        """An epoch without optimizees: `begin` draws them, `load_state` takes up those of a checkpoint."""
        self.tasks = tasks
        self.objectives = objectives
        self.seed = seed
        self.number = number
        self.random_scaling = random_scaling
        self.groups: list[Group] = []

    def begin(self, meta_batch: int) -> MetaEpoch:
        """Draw a task for every optimizee, and its parameters and batches, each from a seed of its own."""
        generator = Generator().manual_seed(seeds.derive(self.seed, "tasks", self.number))
        drawn = torch.randint(len(self.tasks), (meta_batch,), generator=generator).tolist()
        for task_index in sorted(set(drawn)):
            self.groups.append(
                self._group(task_index, [place for place, task in enumerate(drawn) if task == task_index])
            )
        return self

    @property
    def inner_step(self) -> int:
        return self.groups[0].carry.inner_step

    @property
    def truncations(self) -> int:
        return self.groups[0].carry.truncations

    @property
    def coordinates(self) -> int:
        """N, how many coordinates the learned optimizer sees in an inner step."""
        return sum(group.carry.theta.numel() for group in self.groups)

    def alive(self) -> int:
        """How many optimizees have not diverged."""
        return sum(int(group.carry.alive.sum()) for group in self.groups)

    def truncation(self, phi: Phi, factors: Sequence[float], generator: Generator) -> tuple[Phi, dict[str, Tensor]]:
        """Take len(factors) inner steps; return the meta-gradient and the figures, means over all optimizees."""
        gradient: Phi = {name: torch.zeros_like(tensor) for name, tensor in phi.items()}
        found: list[tuple[float, dict[str, Tensor]]] = []
        meta_batch = sum(len(group.members) for group in self.groups)
        for group in self.groups:
            meta = self._advance(group, phi, factors, generator)
            share = len(group.members) / meta_batch
            gradient = {name: gradient[name] + share * meta.gradient[name] for name in gradient}
            found.append((share, meta.figures))
        return gradient, _together(found)

    def _advance(self, group: Group, phi: Phi, factors: Sequence[float], generator: Generator) -> MetaGradient:
        window = group.stream.draw(len(factors))
        scoring = group.scoring.draw(len(factors)) if group.scoring else None
        objective = self.objectives[group.task_index]
        meta, group.carry = truncation(objective, phi, group.carry, window, factors, generator, scoring=scoring)
        return meta

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
        """Everything to go on from: tensors by name, and the facts of each group."""
        tensors: dict[str, Tensor] = {}
        facts: list[dict[str, Any]] = []
        for index, group in enumerate(self.groups):
            tensors |= prefixed(str(index), _tensors(group))
            carry = group.carry
            counts = {"inner_step": carry.inner_step, "truncations": carry.truncations}
            facts.append({"task_index": group.task_index, "members": group.members, **counts})
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Sequence[Mapping[str, Any]]) -> MetaEpoch:
        """Take up the optimizees of a state. Raises KeyError, RuntimeError or RunError where it does not fit."""
        self.groups = [self._restored(fact, under(str(index), tensors)) for index, fact in enumerate(facts)]
        return self

    def _restored(self, fact: Mapping[str, Any], tensors: dict[str, Tensor]) -> Group:
        task_index, members = fact["task_index"], list(fact["members"])
        stream, scoring = self._streams(task_index, members)
        stream.load_state(tensors["stream"])
        if scoring is not None:
            scoring.load_state(tensors["scoring"])
        carry = Carry(
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
