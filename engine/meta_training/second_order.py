"""Second order: the meta-gradient that knows that a step changes the gradients to come, without a graph of the unroll.

With u_t the update that the learned optimizer makes of theta_t, its gradient g_t and its state s_t, the cotangents of
theta and of the state go back one inner step at a time,

    lambda_t = lambda_{t+1} + (d u_t / d theta_t)^T lambda_{t+1} + H_t v_t + c_t,   v_t = (d u_t / d g_t)^T lambda_{t+1}

where H_t is the Hessian of the loss that g_t is of and c_t the slope of what the meta-objective has at theta_t. So no
graph goes from one inner step to the next. Those of the updates, one at a time, and of the gradients g_t are kept on
the way forward for as many of the last inner steps as memory allows; the others are taken again on the way back.

Shape letters: B optimizees, P parameters, T inner steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from engine.base.flat import (
    Batch,
    MicroBatches,
    gradients_and_curvature,
    gradients_and_losses,
    hessian_vector_products,
)
from engine.base.live_memory import LiveMemory
from engine.kernels.recompute import ALIVE
from engine.meta_training.backward import Backward, PenaltyEntry, StepResult, StepStart, Take, as_observed, blank, known
from engine.meta_training.objective import Objective
from engine.optimizers.learned.base import START, Phi, State
from engine.penalties.base import AscentPenalty, InnerStep, Randomness, UpdatePenalty, go_to, is_plain_ascent, positions

MOST_KEPT = 2**30  # bytes of optimizer states, of the updates' graphs, and of the gradients': each of the three


class PenaltyRecord(NamedTuple):
    """What must be known to take an update penalty's value again."""

    inner_step: int  # counted from the truncation's first
    penalty: UpdatePenalty
    features: Tensor | None  # the worst ones that an ascent has found
    randomness: Randomness
    positions: list[Tensor]  # of the random numbers, where they are drawn again


Slopes = Sequence[Tensor | None]


class Graph(NamedTuple):
    """An inner step with its graph, and what it was taken from: leaves."""

    phi: Phi
    theta: Tensor
    grad: Tensor
    loss: Tensor
    state: State  # what of it depends on phi
    move: StepResult


class SecondOrderBackward(Backward):
    """The truncation forward without any graph, and the recursion back."""

    def __init__(self, objective: Objective, phi: Phi, state: State, steps: int, take: Take, *, begins: bool) -> None:
        """`begins`: the unroll begins with this truncation, at the learned initial parameters where phi has some."""
        self.objective, self.phi, self.take = objective, phi, take
        self.starts_at_phi = START in phi and begins
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        self.every = 1 if steps * size <= MOST_KEPT else math.ceil(math.sqrt(steps))
        self.steps, self.graphs_from = steps, steps - graphs_kept(steps, size * ALIVE)
        several = objective.update or (objective.geometric and objective.parameter)
        self.goes_back_once = not several  # the way goes back for each part of the objective: graphs are let go of
        floats = [name for name, part in state.items() if part.is_floating_point()]
        self.slopes_of = set(floats if self.graphs_from else ())  # what of the state may depend on phi
        self.points: list[StepStart] = []
        self.states: dict[int, State] = {}  # before some of the inner steps
        self.graphs: dict[int, Graph] = {}  # of the last inner steps
        self.curvatures: dict[int, Callable[[Tensor], Tensor]] = {}  # likewise: v to H v
        self.curvatures_from = math.inf  # known once one was taken

    def advance(self, point: StepStart, state: State) -> StepResult:
        if len(self.points) % self.every == 0:
            self.states[len(self.points)] = state
        self.points.append(point)
        if len(self.points) <= self.graphs_from:
            return self._again(point, state)
        graph = self.graphs[len(self.points) - 1] = self._graph(point, state)
        moved, after, step = graph.move
        self.slopes_of |= {name for name, part in after.items() if part.requires_grad}
        after = {name: tensor.detach() for name, tensor in after.items()}
        seen = {name: tensor.detach() for name, tensor in step.state.items()}
        step = InnerStep(step.features.detach(), seen, step.update.detach(), step.factor)
        return StepResult(moved.detach(), after, step)

    def slopes(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradients, [B, P], and losses, [B], that feed the next inner step; with their graph, if it is kept."""
        loss, t = self.objective.loss, len(self.points)
        is_curved = t < self.steps and (t > 0 or self.starts_at_phi) and not isinstance(loss, MicroBatches)
        if not is_curved or (self.curvatures and t < self.curvatures_from):
            return gradients_and_losses(loss, theta, batch)
        with contextlib.nullcontext() if self.curvatures else LiveMemory() as live:
            grad, value, self.curvatures[t] = gradients_and_curvature(loss, theta, batch)
        if live is not None:
            self.curvatures_from = self.steps - graphs_kept(self.steps, live.now)
        return grad, value

    def penalty(self, penalty: UpdatePenalty, step: InnerStep, randomness: Randomness) -> tuple[Tensor, PenaltyRecord]:
        features, before = None, positions(randomness)
        if is_plain_ascent(penalty):
            assert isinstance(penalty, AscentPenalty)
            features = penalty.worst_features(self.objective.optimizer, self.phi, step, randomness)
        noted = PenaltyRecord(len(self.points) - 1, penalty, features, randomness, before)
        with torch.no_grad() if features is not None else torch.enable_grad():
            value = self._value(noted, self.phi, step, again=False)
        return value.detach(), noted

    def pull_back(self, thetas: list[Tensor], cotangents: list[Tensor], moves: list[Tensor]) -> Phi:
        return self._back(cotangents, {})

    def pull_back_entries(self, entries: Sequence[PenaltyEntry]) -> Phi:
        return self._back([None] * len(self.points), {entry.source.inner_step: entry for entry in entries})

    def close(self) -> None:
        """Let go of the graphs."""
        self.graphs.clear()
        self.curvatures.clear()

    def _back(self, slopes: Sequence[Tensor | None], entries: dict[int, PenaltyEntry]) -> Phi:
        """The gradient by phi of sum_t <slopes_t, theta_{t+1}> and of the entries at their inner steps."""
        gradient = [torch.zeros_like(tensor) for tensor in self.phi.values()]
        later = torch.zeros_like(self.points[0].theta)  # lambda in the module's docstring
        later_state: dict[str, Tensor] = {}
        states: dict[int, State] = {}
        for t in reversed(range(len(self.points))):
            point = self.points[t]
            if (slope := slopes[t]) is not None:
                later = later + slope
            graph = self.graphs.pop(t, None) if self.goes_back_once else self.graphs.get(t)
            if graph is None:
                states = states if t in states else self._states_up_to(t)
                graph = self._graph(point, states.pop(t))
            by_phi, by_point, later_state = self._pull_through(point, graph, later, later_state, entries.get(t))
            gradient = [total if part is None else total + part for total, part in zip(gradient, by_phi, strict=True)]
            if (t or self.starts_at_phi) and point.batch is not None:
                later = later + blank(self._by_theta(t, *by_point), known(point.resting))
        by_name = dict(zip(self.phi, gradient, strict=True))
        return {**by_name, START: later.sum(0)} if self.starts_at_phi else by_name

    def _graph(self, point: StepStart, state: State) -> Graph:
        """An inner step with its graph, from leaves of its own."""
        phi = {name: tensor.detach().requires_grad_() for name, tensor in self.phi.items()}
        leaves = {name: state[name].detach().requires_grad_() for name in state if name in self.slopes_of}
        theta, grad, loss = (part.detach().requires_grad_() for part in (point.theta, point.grad, point.loss))
        with torch.enable_grad():
            step = partial(self.objective.optimizer.step, phi)
            move = self.take(step, point._replace(theta=theta, grad=grad, loss=loss), {**state, **leaves})
        return Graph(phi, theta, grad, loss, leaves, move)

    def _pull_through(
        self, point: StepStart, graph: Graph, later: Tensor, later_state: dict[str, Tensor], entry: PenaltyEntry | None
    ) -> tuple[Slopes, Slopes, dict[str, Tensor]]:
        """The cotangents of phi, of (theta, the gradient, the loss), and of the state before an inner step, from those
        after. None: nothing depends on it."""
        resting = known(point.resting)
        outputs, cotangents = [graph.move.moved], [blank(later, resting)]
        for name, cotangent in later_state.items():
            outputs.append(graph.move.state[name])
            cotangents.append(cotangent)
        if entry is not None:
            with torch.enable_grad():
                value = self._value(entry.source, graph.phi, graph.move.step, again=True)
                outputs.append(torch.where(entry.cotangent != 0, value, 0.0))
            cotangents.append(entry.cotangent)
        depend = [index for index, output in enumerate(outputs) if output.requires_grad]
        slopes = torch.autograd.grad(
            [outputs[index] for index in depend],
            [*graph.phi.values(), graph.theta, graph.grad, graph.loss, *graph.state.values()],
            [cotangents[index] for index in depend],
            retain_graph=not self.goes_back_once,
            allow_unused=True,
        )
        by_phi, by_point, by_state = (
            slopes[: len(graph.phi)],
            slopes[len(graph.phi) :][:3],
            slopes[len(graph.phi) + 3 :],
        )
        of_state = {
            name: slope if slope.dim() == 0 else blank(slope, resting)
            for name, slope in zip(graph.state, by_state, strict=True)
            if slope is not None
        }
        return by_phi, [None if slope is None else blank(slope, resting) for slope in by_point], of_state

    def _by_theta(self, t: int, by_theta: Tensor | None, by_grad: Tensor | None, by_loss: Tensor | None) -> Tensor:
        """The cotangent of theta_t, [B, P], from those of what the learned optimizer is shown there."""
        point = self.points[t]
        total = torch.zeros_like(point.theta) if by_theta is None else by_theta
        if by_grad is not None:
            stored = self.curvatures.pop(t, None) if self.goes_back_once else self.curvatures.get(t)
            curvature = stored or partial(self._curvature, point)
            total = total + curvature(by_grad)
        return total if by_loss is None else total + by_loss[:, None] * point.grad

    def _curvature(self, point: StepStart, vectors: Tensor) -> Tensor:
        assert point.batch is not None
        return hessian_vector_products(self.objective.loss, point.theta, point.batch, vectors)

    def _states_up_to(self, t: int) -> dict[int, State]:
        """The states before inner steps up to t, from the last one that was kept."""
        first = t - t % self.every
        states = {first: self.states[first]}
        for index in range(first, t):
            states[index + 1] = self._again(self.points[index], states[index]).state
        return states

    @torch.no_grad()
    def _again(self, point: StepStart, state: State) -> StepResult:
        return self.take(partial(self.objective.optimizer.step, self.phi), point, state)

    def _value(self, noted: PenaltyRecord, phi: Phi, step: InnerStep, again: bool) -> Tensor:
        """The penalty's values, [B], at an inner step."""
        penalty, optimizer = noted.penalty, self.objective.optimizer
        step = as_observed(optimizer, phi, step)
        if noted.features is not None:
            assert isinstance(penalty, AscentPenalty)
            other, _ = optimizer.step(phi, noted.features, step.state)
            return penalty.change(step.scaled(step.update), step.scaled(other))
        if not again:
            return penalty.value(optimizer, phi, step, noted.randomness)
        now = positions(noted.randomness)
        go_to(noted.randomness, noted.positions)
        value = penalty.value(optimizer, phi, step, noted.randomness)
        go_to(noted.randomness, now)
        return value


def graphs_kept(steps: int, size: int) -> int:
    """Of how many of the last inner steps the graphs are kept, where one takes so many bytes."""
    return min(steps, MOST_KEPT // max(1, size))
