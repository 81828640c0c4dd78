"""A tape in plain PyTorch, for every learned optimizer and device: memory for a block of coordinates at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent, ascend
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State

PIECE = 20  # inner steps between two kept states: the graph of so many steps is alive at once
GRAPH_BYTES = 2**28  # of that graph, by which coordinates are cut into blocks
ALIVE = 12  # numbers in the graph for each number of the state: gates, their slopes, and what lies between


class RecomputeTape:
    """Steps without a graph; `pull_back` runs them again with one, for a block of coordinates and a piece of steps."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, steps: int) -> None:
        self.optimizer = optimizer
        self.phi = {name: tensor.detach() for name, tensor in phi.items()}
        self._before: State = {}  # of the last step
        self._now = {name: tensor.detach() for name, tensor in state.items()}
        self._features: list[Tensor] = []
        self._observed: list[State] = []  # what is not the network's, of every step
        self._kept: list[State] = []  # the network's part at the start of every piece
        self._units: set[str] = set()
        self._update = torch.empty(0)

    @torch.no_grad()
    def step(self, features: Tensor, observed: State) -> Tensor:
        self._before = {**observed, **{name: self._now[name] for name in self._units}}
        update, after = self.optimizer.step(self.phi, features, self._before)
        self._units = {name for name in after if after[name] is not self._before.get(name)}
        if len(self._features) % PIECE == 0:
            self._kept.append({name: self._before[name] for name in self._units})
        self._features.append(features)
        self._observed.append({name: value for name, value in observed.items() if name not in self._units})
        self._now, self._update = after, update
        return update

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        features = self._features[-1]
        worst = ascend(self.optimizer, self.phi, features, self._before, self._update, offset, ascent)
        return worst, self.last_step()(worst)

    def last_step(self) -> Callable[[Tensor], Tensor]:
        """The last step's update, [B, P], as a function of the features, [B, P, F]; no graph."""
        return torch.no_grad()(lambda features, before=self._before: self.optimizer.step(self.phi, features, before)[0])

    def state(self) -> State:
        return {name: self._now[name] for name in self._units}

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        total = {name: torch.zeros_like(tensor) for name, tensor in self.phi.items()}
        coordinates = slopes[0].numel()
        for block in _blocks(coordinates, self._block_size(coordinates)):
            carried: State = {}  # slopes of the state, from the end of the truncation to its start
            for first in reversed(range(0, len(slopes), PIECE)):
                piece = range(first, min(first + PIECE, len(slopes)))
                gradient, carried = self._pull_piece(piece, block, slopes, side, carried)
                total = {name: total[name] + gradient[name] for name in total}
        return total

    def close(self) -> None:
        """Nothing to do: the memory goes with the tape."""

    def _pull_piece(
        self, piece: range, block: slice, slopes: list[Tensor], side: SideInput | None, carried: State
    ) -> tuple[Phi, State]:
        phi = {name: tensor.clone().requires_grad_() for name, tensor in self.phi.items()}
        start = {
            name: _cut(value, block).clone().requires_grad_()
            for name, value in self._kept[piece.start // PIECE].items()
        }
        units, outputs, cotangents = start, [], []
        with torch.enable_grad():
            for index in piece:
                seen = {name: _cut(value, block) for name, value in self._observed[index].items()} | units
                update, after = self.optimizer.step(phi, _cut(self._features[index], block), seen)
                outputs.append(update)
                cotangents.append(slopes[index].reshape(-1)[block])
                if side is not None and (elsewhere := side.features[index]) is not None:
                    slope = side.slopes[index]
                    assert slope is not None
                    outputs.append(self.optimizer.step(phi, _cut(elsewhere, block), seen)[0])
                    cotangents.append(slope.reshape(-1)[block])
                units = {name: after[name] for name in units}
        for name, slope in carried.items():
            outputs.append(units[name])
            cotangents.append(slope)
        inputs = [*phi.values(), *start.values()]
        gradients = torch.autograd.grad(outputs, inputs, cotangents, materialize_grads=True)
        return dict(zip(phi, gradients, strict=False)), dict(zip(start, gradients[len(phi) :], strict=True))

    def _block_size(self, coordinates: int) -> int:
        numbers = sum(value.numel() for value in self._kept[0].values()) / max(1, coordinates)
        item = next(iter(self.phi.values())).element_size()
        steps = min(PIECE, len(self._features))
        return max(1, int(GRAPH_BYTES / (item * ALIVE * steps * (numbers + 1))))


def _cut(value: Tensor, block: slice) -> Tensor:
    """A block of coordinates: [B, P, ·] to [n, ·], [B, P] to [n]; `time` as it is."""
    if value.ndim == 0:
        return value
    return (value.reshape(-1, value.shape[-1]) if value.ndim == 3 else value.reshape(-1))[block]


def _blocks(coordinates: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, coordinates, size)]
