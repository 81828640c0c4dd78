"""Second order: the meta-gradient that knows that a step changes the gradients to come, without a graph of the unroll.

With u_t the update that the learned optimizer makes of theta_t, its gradient g_t and its state s_t, the cotangents of
theta and of the state go back one inner step at a time,

    lambda_t = lambda_{t+1} + (d u_t / d theta_t)^T lambda_{t+1} + H_t v_t + c_t,   v_t = (d u_t / d g_t)^T lambda_{t+1}

where H_t is the Hessian of the loss that g_t is of and c_t the slope of what the meta-objective has at theta_t. So the
optimizee has no graph, and costs one Hessian-vector product more for each inner step; the updates are differentiated
one at a time. Their graphs are kept on the way forward where memory allows, else taken again on the way back.

Shape letters: B optimizees, P parameters, T inner steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from engine.base.flat import hessian_vector_products
from engine.kernels.recompute import ALIVE
from engine.meta_training.backward import Entry, Move, Point, Take, as_observed
from engine.meta_training.objective import Objective
from engine.optimizers.learned.base import START, Phi, State
from engine.penalties.base import AscentPenalty, InnerStep, Randomness, UpdatePenalty, is_plain_ascent

MOST_STATES = 2**30  # bytes of optimizer states, and of graphs, that are kept; what takes more is computed again


class Noted(NamedTuple):
    """What must be known to take an update penalty's value again."""

    inner_step: int  # counted from the truncation's first
    penalty: UpdatePenalty
    features: Tensor | None  # the worst ones that an ascent has found
    randomness: Randomness
    place: list[Tensor]  # of the random numbers, where they are drawn again


class Graph(NamedTuple):
    """An inner step with its graph, and what it was taken from: leaves."""

    phi: Phi
    theta: Tensor
    grad: Tensor
    loss: Tensor
    state: State  # of floats
    move: Move


class SecondOrderBackward:
    """The truncation forward without any graph, and the recursion back."""

    def __init__(self, objective: Objective, phi: Phi, state: State, steps: int, take: Take, *, begins: bool) -> None:
        """`begins`: the unroll begins with this truncation, at the learned initial parameters where phi has some."""
        self.objective, self.phi, self.take = objective, phi, take
        self.starts_at_phi = START in phi and begins
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        self.every = 1 if steps * size <= MOST_STATES else math.ceil(math.sqrt(steps))
        self.keeps_graphs = steps * size * ALIVE <= MOST_STATES
        self.points: list[Point] = []
        self.states: dict[int, State] = {}  # before some of the inner steps
        self.graphs: list[Graph] = []  # of all inner steps, or none

    def advance(self, point: Point, state: State) -> Move:
        if len(self.points) % self.every == 0:
            self.states[len(self.points)] = state
        self.points.append(point)
        if not self.keeps_graphs:
            return self._again(point, state)
        self.graphs.append(self._graph(point, state))
        moved, after, step = self.graphs[-1].move
        after = {name: tensor.detach() for name, tensor in after.items()}
        seen = {name: tensor.detach() for name, tensor in step.state.items()}
        step = InnerStep(step.features.detach(), seen, step.update.detach(), step.factor)
        return Move(moved.detach(), after, step)

    def penalty(self, penalty: UpdatePenalty, step: InnerStep, randomness: Randomness) -> tuple[Tensor, Noted]:
        place = [generator.get_state() for generator in _generators(randomness)]
        features = None
        if is_plain_ascent(penalty):
            assert isinstance(penalty, AscentPenalty)
            features = penalty.worst_features(self.objective.optimizer, self.phi, step, randomness)
        noted = Noted(len(self.points) - 1, penalty, features, randomness, place)
        with torch.no_grad() if features is not None else torch.enable_grad():
            value = self._value(noted, self.phi, step, again=False)
        return value.detach(), noted

    def pull_back(self, thetas: list[Tensor], cotangents: list[Tensor], moves: list[Tensor]) -> Phi:
        return self._back(cotangents, {})

    def pull_back_entries(self, entries: Sequence[Entry]) -> Phi:
        return self._back([None] * len(self.points), {_noted(entry).inner_step: entry for entry in entries})

    def state(self, state: State) -> State:
        return state

    def close(self) -> None:
        """Let go of the graphs."""
        self.graphs.clear()

    def _back(self, slopes: Sequence[Tensor | None], entries: dict[int, Entry]) -> Phi:
        """The gradient by phi of sum_t <slopes_t, theta_{t+1}> and of the entries at their inner steps."""
        gradient = [torch.zeros_like(tensor) for tensor in self.phi.values()]
        later = torch.zeros_like(self.points[0].theta)  # lambda in the module's docstring
        later_state: dict[str, Tensor] = {}
        states: dict[int, State] = {}
        for t in reversed(range(len(self.points))):
            point = self.points[t]
            if (slope := slopes[t]) is not None:
                later = later + slope
            if self.keeps_graphs:
                graph = self.graphs[t]
            else:
                states = states if t in states else self._states_up_to(t)
                graph = self._graph(point, states.pop(t))
            by_phi, by_grad, by_loss, by_theta, later_state = self._pull_through(
                point, graph, later, later_state, entries.get(t)
            )
            gradient = [total + part for total, part in zip(gradient, by_phi, strict=True)]
            if (t or self.starts_at_phi) and point.batch is not None:
                curved = hessian_vector_products(self.objective.loss, point.theta, point.batch, by_grad)
                later = later + _blank(by_theta + curved + by_loss[:, None] * point.grad, point.resting)
        by_name = dict(zip(self.phi, gradient, strict=True))
        return {**by_name, START: later.sum(0)} if self.starts_at_phi else by_name

    def _graph(self, point: Point, state: State) -> Graph:
        """An inner step with its graph, from leaves of its own."""
        phi = {name: tensor.detach().requires_grad_() for name, tensor in self.phi.items()}
        leaves = {name: part.detach().requires_grad_() for name, part in state.items() if part.is_floating_point()}
        theta, grad, loss = (part.detach().requires_grad_() for part in (point.theta, point.grad, point.loss))
        with torch.enable_grad():
            step = partial(self.objective.optimizer.step, phi)
            move = self.take(step, point._replace(theta=theta, grad=grad, loss=loss), {**state, **leaves})
        return Graph(phi, theta, grad, loss, leaves, move)

    def _pull_through(
        self, point: Point, graph: Graph, later: Tensor, later_state: dict[str, Tensor], entry: Entry | None
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The cotangents of phi, the gradient, the loss, theta and the state before an inner step, from those after."""
        outputs, cotangents = [graph.move.moved], [_blank(later, point.resting)]
        for name, cotangent in later_state.items():
            outputs.append(graph.move.state[name])
            cotangents.append(cotangent)
        if entry is not None:
            with torch.enable_grad():
                value = self._value(_noted(entry), graph.phi, graph.move.step, again=True)
                outputs.append(torch.where(entry.cotangent != 0, value, 0.0))
            cotangents.append(entry.cotangent)
        depend = [index for index, output in enumerate(outputs) if output.requires_grad]
        slopes = torch.autograd.grad(
            [outputs[index] for index in depend],
            [*graph.phi.values(), graph.theta, graph.grad, graph.loss, *graph.state.values()],
            [cotangents[index] for index in depend],
            retain_graph=self.keeps_graphs,  # parts of the objective are pulled back one after another
            materialize_grads=True,
        )
        by_phi, by_point = slopes[: len(graph.phi)], slopes[len(graph.phi) :]
        by_theta, by_grad, by_loss = (_blank(slope, point.resting) for slope in by_point[:3])
        of_state = {
            name: slope if slope.dim() == 0 else _blank(slope, point.resting)
            for name, slope in zip(graph.state, by_point[3:], strict=True)
        }
        return list(by_phi), by_grad, by_loss, by_theta, of_state

    def _states_up_to(self, t: int) -> dict[int, State]:
        """The states before inner steps up to t, from the last one that was kept."""
        first = t - t % self.every
        states = {first: self.states[first]}
        for index in range(first, t):
            states[index + 1] = self._again(self.points[index], states[index]).state
        return states

    @torch.no_grad()
    def _again(self, point: Point, state: State) -> Move:
        return self.take(partial(self.objective.optimizer.step, self.phi), point, state)

    def _value(self, noted: Noted, phi: Phi, step: InnerStep, again: bool) -> Tensor:
        """The penalty's values, [B], at an inner step."""
        penalty, optimizer = noted.penalty, self.objective.optimizer
        step = as_observed(optimizer, phi, step)
        if noted.features is not None:
            assert isinstance(penalty, AscentPenalty)
            other, _ = optimizer.step(phi, noted.features, step.state)
            return penalty.change(step.scaled(step.update), step.scaled(other))
        if not again:
            return penalty.value(optimizer, phi, step, noted.randomness)
        generators = _generators(noted.randomness)
        now = [generator.get_state() for generator in generators]
        for generator, state in zip(generators, noted.place, strict=True):
            generator.set_state(state)
        value = penalty.value(optimizer, phi, step, noted.randomness)
        for generator, state in zip(generators, now, strict=True):
            generator.set_state(state)
        return value


def _noted(entry: Entry) -> Noted:
    assert isinstance(entry.source, Noted)
    return entry.source


def _generators(randomness: Randomness) -> Sequence[Generator]:
    return [randomness] if isinstance(randomness, Generator) else randomness


def _blank(tensor: Tensor, resting: Tensor) -> Tensor:
    return tensor.masked_fill(resting.view(-1, *(1,) * (tensor.dim() - 1)), 0.0)
