"""What meta-training takes in memory, known before it begins: by part, in bytes.

A truncation keeps, for each of the N = B P coordinates of the optimizees and each of its T inner steps, the numbers
that are counted here. What one gradient and one step of the learned optimizer take is measured on the meta device,
where nothing is computed. What operations use inside themselves is not counted, nor are Python and its libraries.

Shape letters: B optimizees, P parameters of each, T inner steps of a truncation, M particles, N coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine import kernels
from engine.base import flat
from engine.base.live_memory import LiveMemory, peak_of
from engine.evaluation.frozen_unroll import DRAWN_AT_ONCE
from engine.evaluation.transfer import EPISODES_AT_ONCE
from engine.kernels.arrays import BYTES_KEPT
from engine.kernels.native import NativeNetwork
from engine.kernels.recompute import ALIVE, GRAPH_BYTES, PIECE
from engine.kernels.rows import numbers_kept
from engine.meta_training import particles
from engine.meta_training.meta_train import MetaTrainer
from engine.meta_training.penalty_terms import geometric_penalty_at
from engine.meta_training.second_order import MOST_KEPT, graphs_kept
from engine.optimizers.learned.base import StepInfo
from engine.penalties.base import is_plain_ascent
from engine.probes.ascent import portion
from engine.probes.landscape import landscapes
from engine.tasks.base import Task
from engine.tasks.bounded import bounded_loss

CLIMBING = 6  # vectors of each climb of a probe: where it is, its slope, where it goes, and copies
PHI_COPIES = 8  # phi, the best, the initial, their mean, the gradient and its parts, Adam's two moments

PARTS = {
    "parameters": "theta of the optimizees and its gradient; meta-parameters and meta-optimizer",
    "optimizer_state": "what the learned optimizer remembers of every coordinate",
    "truncation": "kept for the meta-gradient: features, states or graph, cotangents",
    "batches": "batches under way, and the numbers that they are drawn by",
    "data": "examples",
    "activations": "forward and backward pass of all optimizees, penalties included",
    "network": "a step of the learned optimizer",
    "pull_back": "the way back to the meta-parameters",
    "unroll": "an evaluation's optimizees on their way",
    "probes": "an evaluation's look at the landscape",
}
"""What the parts are."""
PASSING = ("activations", "network", "pull_back")  # one after another, on top of the others
EVALUATION = ("unroll", "probes")  # in place of all but what waits meanwhile
WAITING = ("parameters", "optimizer_state", "data")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one task, by part (`PARTS`)."""

    task: str
    optimizees: int  # side by side, of all particles
    parameters: int  # of each
    way: str  # in which the learned optimizer's steps are taken back
    parts: dict[str, int]

    @property
    def training(self) -> int:
        """The peak of a meta-step: all that is held, and the most that passes."""
        held = sum(size for name, size in self.parts.items() if name not in (*PASSING, *EVALUATION))
        return held + max(self.parts[name] for name in PASSING)

    @property
    def evaluation(self) -> int:
        """The peak of an evaluation."""
        return sum(self.parts[name] for name in WAITING) + max(self.parts[name] for name in EVALUATION)

    @property
    def total(self) -> int:
        return max(self.training, self.evaluation)


def plan(trainer: MetaTrainer, tasks: Iterable[Task], device: torch.device) -> MemoryPlan:
    """The plan on the task that takes most, with all of the meta-batch on it, as meta-training would go on a device.

    `trainer` and tasks may be on another one: nothing is computed.
    """
    return max((_on_task(trainer, task, device) for task in tasks), key=lambda made: made.total)


def _on_task(trainer: MetaTrainer, task: Task, device: torch.device) -> MemoryPlan:
    work = _Work(trainer, task, device)
    parts = work.common()
    if trainer.estimator.particles:
        add = work.add_particles
    else:
        add = work.add_second_order if trainer.estimator.second_order else work.add_back_propagation
    way = add(parts)
    parts |= {"unroll": work.evaluation_unroll(), "probes": work.probes()}
    return MemoryPlan(task.name, work.optimizees * work.particles, task.parameters, way, parts)


class _Work:
    """A truncation of all optimizees on one task."""

    def __init__(self, trainer: MetaTrainer, task: Task, device: torch.device) -> None:
        self.trainer, self.task, self.device = trainer, task, device
        self.optimizer, self.objective = trainer.optimizer, trainer.objective_on(task)
        settings, estimator = trainer.settings, trainer.estimator
        self.horizon = max(settings.stages)
        self.steps = self.horizon if estimator.whole_unrolls else min(settings.truncation, self.horizon)
        self.optimizees, self.particles = settings.meta_batch, max(1, estimator.particles)
        self.theta = torch.empty(self.optimizees, task.parameters, dtype=task.dtype, device="meta")
        self.vector = _bytes([self.theta]) * self.particles  # of a number for each of the N coordinates
        self.state = self.optimizer.init(self.theta, task.layout)
        self.step = self._measured_step()

    # -- the parts, bytes --------------------------------------------------------------------------------------------

    def common(self) -> dict[str, int]:
        """What every estimator has: without what it keeps of a truncation, and its way back."""
        settings, objective = self.trainer.settings, self.objective
        drawn, batch, making = self._batches()
        sources = 2 if objective.loss_batch == "validation" else 1
        return {
            # where the truncation began, for each meta-epoch under way, and the gradient that feeds the next step
            "parameters": PHI_COPIES * _bytes(self.trainer.phi.values()) + (2 * settings.staggered + 1) * self.vector,
            "optimizer_state": settings.staggered * _bytes(self.state.values()) * self.particles,
            "truncation": 0,
            "batches": sources * drawn + (1 + sources) * batch + making,  # the last one is still there
            "data": _bytes_of_storages(self.task.tensors()),
            "activations": max(self._gradient(), self._penalties()),
            "network": self.step.forward,
            "pull_back": 0,
        }

    def add_back_propagation(self, parts: dict[str, int]) -> str:
        """`unroll.Truncation`, with a tape or autograd's graph."""
        steps, vector, step = self.steps, self.vector, self.step
        geometric, updates = bool(self.objective.geometric), list(self.objective.update.values())
        has_factor = self.optimizer.step_scale != "none" or self.trainer.settings.random_scaling > 0
        saved = (2 + geometric + has_factor) * steps * vector  # thetas, their cotangents, factors of the updates
        slopes = (1 + geometric) * steps * vector  # of the updates, and the cotangents added up
        sides = len(updates) * steps * (step.features + 2 * vector)  # the other input, and the slopes at both
        masked = steps * (2 * step.features + 3 * vector) if updates else 0  # the same again, one penalty after another
        way = "plain"
        if all(map(is_plain_ascent, updates)) and not self.optimizer.differentiates_theta:
            ascends = bool(updates)
            way = kernels.tape_way(self.optimizer, self.state, self.device, self.task.dtype, steps, ascends=ascends)
        if way == "native":
            phi = {name: tensor.detach().cpu() for name, tensor in self.trainer.phi.items()}
            network = NativeNetwork(self.optimizer, phi, self.theta.numel())
            states = 2 + math.ceil(steps / network.piece)
            arrays = steps * (step.features + vector) + states * step.units + network.gate_bytes(steps)
            parts["network"] = step.observing
            beside = steps * vector + step.units  # slopes of updates and state, as the kernels take them
            is_kept = arrays + beside <= BYTES_KEPT  # for the next truncation, so it is always there
            saved += arrays + sides + is_kept * beside
            parts["pull_back"] = max(slopes + masked + (not is_kept) * beside, step.units)
        elif way == "dense":
            saved += steps * (step.features + vector)
            parts["network"] = step.observing
            parts["pull_back"] = slopes + steps * vector
        elif way == "rows":
            assert self.optimizer.network is not None
            saved += steps * numbers_kept(self.optimizer.network) * vector + sides
            parts["network"] = step.observing
            parts["pull_back"] = slopes + masked + step.units
        elif way == "plain":
            saved += steps * step.graph + len(updates) * steps * (step.graph + 2 * vector)
            parts["network"] = step.forming + (step.graph + step.features) * bool(updates)
            parts["pull_back"] = step.pulling
        elif way == "triton":  # all states are kept, and of a side's step one more
            saved += steps * (2 * step.features + step.moments + vector) + (steps + 1) * step.units + sides
            parts["pull_back"] = slopes + masked + (3 if updates else 2) * step.units
        else:
            states = 2 + math.ceil(steps / PIECE)
            saved += steps * (step.features + step.moments) + states * step.units + sides
            at_once = min(PIECE, steps)  # steps whose graphs are alive together, for a block of the coordinates
            block = min(1.0, GRAPH_BYTES / (ALIVE * at_once * (step.units + vector)))
            graph = int(block * (at_once * step.graph + step.pulling))
            parts["pull_back"] = slopes + masked + graph * (2 if updates else 1)
        parts["truncation"] = saved
        parts["optimizer_state"] += step.moments
        return {"plain": "autograd", "native": "tape", "dense": "tape", "rows": "tape"}.get(way, way)

    def add_second_order(self, parts: dict[str, int]) -> str:
        """`second_order.SecondOrderBackward`: points and states are kept, and graphs of the last inner steps."""
        steps, vector, step = self.steps, self.vector, self.step
        state_before = _bytes(self.state.values())
        every = 1 if steps * state_before <= MOST_KEPT else math.ceil(math.sqrt(steps))
        graph_count, curvature = graphs_kept(steps, state_before * ALIVE), self._curvature()
        curved = min(steps - 1, graphs_kept(steps, curvature)) if curvature else 0
        state, updates = step.moments + step.units, len(self.objective.update)
        parts["truncation"] = (
            (3 + bool(self.objective.geometric)) * steps * vector  # theta, gradient, cotangents
            + steps * self.batch
            + graph_count * step.graph
            + math.ceil((steps - graph_count) / every) * state
            + curved * max(0, curvature - vector)  # the gradient is in it
            + updates * steps * step.features
        )
        again = 0 if graph_count == steps else step.graph + (every if every > 1 else 0) * state
        product = self._peak_of(flat.hessian_vector_products, self.theta) - (curvature if curved == steps - 1 else 0)
        parts["network"] = step.forming + (0 if graph_count == steps else state)
        # where it goes back once, the graph goes meanwhile
        pulling = step.pulling * (1 + updates) if updates else max(0, step.pulling - step.graph)
        parts["pull_back"] = again + state + 2 * vector + max(pulling, product)
        return "second order" if graph_count == steps else "second order, graphs taken again"

    def _curvature(self) -> int:
        """Bytes of the graph of a gradient."""
        if isinstance(self.objective.loss, flat.MicroBatches):
            return 0
        with LiveMemory() as live:
            _kept = flat.gradients_and_curvature(self.objective.loss, self.theta, self.examples)
            return live.now

    def add_particles(self, parts: dict[str, int]) -> str:
        """`particles.ParticleTruncation`: forward only; nothing is kept of an inner step."""
        optimizer, kind, dtype = self.optimizer, self.device, self.task.dtype
        state = _bytes(self.state.values()) * self.particles
        if self.trainer.estimator.whole_unrolls:  # fresh states begin as views of the same zeros
            parts["optimizer_state"] = _bytes_of_storages(self.state.values()) * self.particles
        reached = {term.at for term in self.objective.terms.values() if term.at}
        parts["truncation"] = (1 + len(reached)) * self.vector  # theta as it is now, and where losses were reached
        parts["optimizer_state"] += state
        if kernels.goes_native(optimizer, kind, dtype):
            parts["network"] = self.step.observing // self.particles + 2 * self.vector
            parts["pull_back"] = 2 * state  # taken out of the kernels' order, particle by particle
        elif kernels.goes_linear(optimizer, kind, dtype):
            parts["network"], parts["pull_back"] = 3 * self.vector, state
        else:
            parts["network"] = self._step_of_particles() + 2 * self.vector
        return "forward only"

    def evaluation_unroll(self) -> int:
        """`frozen_unroll` of the held-out optimizees, side by side."""
        settings = self.trainer.evaluation
        rows = max(settings.optimizees, settings.final_optimizees)
        rows = min(rows, EPISODES_AT_ONCE) if self.task.is_episodic else rows
        theta = torch.empty(rows, self.task.parameters, dtype=self.task.dtype, device="meta")
        batch = flat.tree_map(lambda tensor: tensor[:1].expand(rows, *tensor.shape[1:]), self.examples)
        gradient = peak_of(flat.gradients_and_losses, self.objective.loss, theta, batch)
        of_one = (2 * _bytes(self.state.values()) + self.step.observing // self.particles) // self.optimizees
        return 5 * _bytes([theta]) + rows * of_one + gradient

    def probes(self) -> int:
        """The landscape's Hessian-vector products and Lanczos vectors, and the points that climb beside them."""
        task, settings = self.task, self.trainer.evaluation
        if task.is_episodic:
            return 0
        precision = torch.float32 if settings.precision == "float32" else torch.float64
        batch = flat.tree_map(lambda tensor: tensor.to("meta"), task.fixed_batch(settings.examples, dtype=precision))
        theta = torch.empty(settings.optimizees, task.parameters, dtype=precision, device="meta")
        loss = bounded_loss(task, batch)
        if isinstance(loss, flat.PartedLoss):  # two parts take what many take, one after another
            loss = flat.PartedLoss(loss.parts[:2], loss.points)
        land = next(landscapes(loss, theta))
        points = torch.empty(portion(theta, loss), task.parameters, dtype=precision, device="meta")
        with LiveMemory() as live:
            land.hvp(land.gradient)
            graph, curving = live.now, live.peak
            live.begin()
            flat.as_far_as_possible(land.climb_slope)(points)
            climbing = live.peak - graph
        vector = _bytes([land.theta])
        basis = (1 + min(land.iterations, task.parameters)) * vector
        climbs = CLIMBING * (settings.restarts + 2) * vector
        return graph + max(curving - graph + basis, climbing + climbs + basis)

    def _step_of_particles(self) -> int:
        carry = particles.begin(self.objective, self.particles, self.theta, None, horizon=self.horizon)
        many = {name: tensor.detach().to("meta") for name, tensor in self.trainer.phi.items()}
        many = {name: tensor.expand(self.particles, *tensor.shape) for name, tensor in many.items()}
        steps = particles.ParticleSteps(self.objective, many, carry)
        with torch.no_grad():
            peak = peak_of(steps, carry.theta, carry.grad, carry.loss, 0)
        steps.close()
        return peak

    # -- what is measured --------------------------------------------------------------------------------------------

    def _batches(self) -> tuple[int, int, int]:
        """Bytes for B optimizees: of the numbers that batches are drawn by, of a batch, and that making it takes."""
        whole = self.trainer.estimator.whole_unrolls
        stream = self.task.batches([0], "train")
        with LiveMemory() as live:
            batches = stream.draw(min(DRAWN_AT_ONCE, self.steps) if whole else self.steps)
            drawn = live.begin()
            batch = batches[0]
            made, making = live.now - drawn, live.peak - live.now
        self.examples = flat.tree_map(
            lambda tensor: tensor.to("meta").expand(self.optimizees, *tensor.shape[1:]).contiguous(), batch
        )
        self.batch = self.optimizees * made
        return self.optimizees * drawn, self.batch, self.optimizees * making

    def _gradient(self) -> int:
        of_particles = self.theta.expand(self.particles, *self.theta.shape)
        points = of_particles if self.trainer.estimator.particles else self.theta
        return peak_of(flat.gradients_and_losses, self.objective.loss, points, self.examples)

    def _penalties(self) -> int:
        """The largest of the geometric penalties, beside the gradient and the slopes of all of them."""
        rows = self.theta[:, 0]
        sizes = [
            peak_of(geometric_penalty_at(penalty, self.objective.loss), self.theta, self.examples, rows, self.theta, 0)
            for penalty in self.objective.geometric.values()
        ]
        return max(sizes) * self.particles + 3 * self.vector if sizes else 0

    def _peak_of(self, function: Callable[..., Any], *more: Tensor) -> int:
        return peak_of(function, self.objective.loss, self.theta, self.examples, *more)

    def _measured_step(self) -> _Step:
        """The learned optimizer's step at all coordinates, as it is taken forward, and as one that is gone back."""
        optimizer, layout, theta, state = self.optimizer, self.task.layout, self.theta, self.state
        seen = _Episodes(self.task, self.optimizees) if optimizer.uses_task else None
        info = StepInfo(theta[:, 0], 0, self.horizon, seen)
        phi = {name: tensor.detach().to("meta").requires_grad_() for name, tensor in self.trainer.phi.items()}
        with LiveMemory() as live:
            with torch.no_grad():
                features, observed = optimizer.observe(theta, theta, state, layout, info)
                observing = live.peak
                _, after = optimizer.step(phi, features, observed)
            moments = [observed[name] for name in observed if observed[name] is not state.get(name)]
            of_network = [name for name in after if after[name] is not observed.get(name)]
            sizes = [_bytes([features]), _bytes(moments), _bytes(after[name] for name in of_network)]
            sizes += [observing, live.peak]
            del features, observed, after, moments
            sizes += self._measured_graph(live, phi, info, of_network)
        return _Step(*(size * self.particles for size in sizes))

    def _measured_graph(
        self, live: LiveMemory, phi: dict[str, Tensor], info: StepInfo, of_network: Sequence[str]
    ) -> tuple[int, int, int]:
        """Bytes of the graph that a step leaves, and what making it and going back through it takes beside it."""
        optimizer, layout, second = self.optimizer, self.task.layout, self.objective.second_order
        floats = [name for name, part in self.state.items() if part.is_floating_point()]
        names = floats if second else [name for name in floats if name in of_network]
        leaves = {name: self.state[name].detach().requires_grad_() for name in names}
        theta = self.theta.detach().requires_grad_(second or optimizer.differentiates_theta)
        grad = self.theta.detach().requires_grad_(second)
        before = live.begin()
        features, observed = optimizer.observe(theta, grad, {**self.state, **leaves}, layout, info)
        update, after = optimizer.step(phi, features, observed)
        ends = [update, *(after[name] for name in names if after[name].requires_grad)]
        del features, observed, after
        graph = live.now - before
        forming = live.peak - live.now
        inputs = [*phi.values(), *leaves.values(), *(leaf for leaf in (theta, grad) if leaf.requires_grad)]
        slopes = [torch.empty_like(end) for end in ends]
        live.begin()
        torch.autograd.grad(ends, inputs, slopes, retain_graph=True, allow_unused=True)
        return graph, forming, live.peak - graph - before


class _Episodes(Task):
    """What a learned optimizer that looks at its task sees of B episodes, as shapes."""

    def __init__(self, task: Task, optimizees: int) -> None:
        queries = task.of([0]).query_inputs(task.dtype).to("meta")
        self.queries = queries.expand(optimizees, *queries.shape[1:])

    def query_inputs(self, dtype: torch.dtype) -> Tensor:
        return self.queries.to(dtype, copy=True)


@dataclass(frozen=True)
class _Step:
    """One step of the learned optimizer at all coordinates, in bytes."""

    features: int
    moments: int  # of the state, what `observe` makes anew
    units: int  # and what `step` does
    observing: int  # most that `observe` takes
    forward: int  # and that both take, where nobody goes back
    graph: int  # what a step leaves behind where somebody does
    forming: int  # what that takes beside
    pulling: int  # and most that going back takes beside


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _bytes_of_storages(tensors: Iterable[Tensor]) -> int:
    """Of tensors that may be views of the same numbers."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())
