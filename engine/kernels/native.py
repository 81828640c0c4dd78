"""A tape on the CPU kernels of native.cpp."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.kernels import arrays
from engine.kernels.arrays import give_back
from engine.kernels.build import isa_of, library
from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Network, Phi, State

GROUPS = 64  # of coordinates, summed apart: the sums do not depend on the number of threads
PIECE_BYTES = 7 * 2**17  # what the pull-back of a piece of the truncation may take of a core's cache
LONGEST_PIECE = 32
MOST_LAYERS = 8  # of native.cpp
GATE_BYTES = 2**28  # what a truncation's gates may take; beyond, they are computed anew on the way back
GATE_THREADS = 8  # that share the memory's bandwidth


def supports(network: Network | None, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels know this network, on this device, in this precision."""
    is_supported = network is not None and network.layers <= MOST_LAYERS
    return is_supported and device.type == "cpu" and dtype in (torch.float32, torch.float64)


class NativeNetwork:
    """A learned optimizer's network with its meta-parameters, on a number of coordinates, as the kernels take it."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, coordinates: int) -> None:
        network = optimizer.trusted_network
        assert network is not None
        self.network = network
        self.coordinates = coordinates
        self.phi = {name: tensor.detach().contiguous() for name, tensor in phi.items()}
        self.dtype = next(iter(self.phi.values())).dtype
        double = self.dtype == torch.float64
        self._number = ctypes.c_double if double else ctypes.c_float
        self._suffix = "double" if double else "float"
        self.lanes = library().lreg_lanes(8 if double else 4)
        self.tiles = -(-coordinates // self.lanes)
        self.rows = len(network.units) * network.hidden
        lstm, flags = network.cell == "lstm", (network.entrance, network.layers, network.hidden, network.squashed)
        self._shape = (ctypes.c_int64 * 6)(0 if lstm else 1, network.features, *map(int, flags))
        pointers = [self.phi[name].data_ptr() if name else None for name in network.weights]
        self._weights = (ctypes.c_void_p * len(pointers))(*pointers)

    def call(self, function: str, *arguments: object) -> None:
        """Call a kernel of the network: see `_run`."""
        start = (self._shape, self._number(self.network.scale), self._weights, ctypes.c_int64(self.coordinates))
        self._run(function, *start, *arguments)

    def _run(self, function: str, *arguments: object) -> None:
        """Tensors go as pointers, floats in the network's precision; then the number of threads."""
        kernel = getattr(library(), f"lreg_{function}_{self._suffix}")
        kernel(*(self._argument(value) for value in arguments), ctypes.c_int(torch.get_num_threads()))

    def _argument(self, value: object) -> object:
        if isinstance(value, Tensor):
            return ctypes.c_void_p(self._checked(value).data_ptr())
        return self._number(value) if isinstance(value, float) else ctypes.c_void_p(0) if value is None else value

    def _checked(self, tensor: Tensor) -> Tensor:
        """The tensor, if a kernel can read it. Raises TypeError: its numbers would be taken for others."""
        if tensor.dtype != self.dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
            found = f"{tensor.dtype} on {tensor.device}" + ("" if tensor.is_contiguous() else ", not contiguous")
            raise TypeError(f"the kernels of this network take contiguous {self.dtype} on the CPU, found {found}")
        return tensor

    @property
    def piece(self) -> int:
        """Inner steps of a tape between two states that it keeps."""
        network = self.network  # what one step of one tile keeps while it is pulled back:
        numbers = 7 * network.layers * network.hidden + network.hidden + network.features + 1
        step_bytes = numbers * self.lanes * self.phi["head.weight"].element_size()
        return max(2, min(LONGEST_PIECE, PIECE_BYTES // step_bytes))

    @property
    def gates_shape(self) -> tuple[int, int, int]:
        """Of one inner step's gates."""
        return self.tiles, 4 * self.network.layers * self.network.hidden, self.lanes

    def gate_bytes(self, steps: int) -> int:
        """What a tape of so many steps keeps of gates; 0: it computes them anew. With AVX-512 that takes no longer."""
        if self.network.cell != "lstm" or isa_of(library()) == "AVX-512" or torch.get_num_threads() > GATE_THREADS:
            return 0
        size = steps * math.prod(self.gates_shape) * self.dtype.itemsize
        return size if size <= GATE_BYTES else 0

    def pack(self, state: State) -> Tensor:
        """The units of an optimizer state, [..., P, H] each, as the kernels' tiles."""
        packed = self.array(self.tiles, self.rows, self.lanes)
        self._repack("pack", [state[name].contiguous() for name in self.network.units], packed)
        return packed

    def unpack(self, packed: Tensor, shape: Sequence[int]) -> State:
        """The other way round; `shape` is [..., P]."""
        hidden = self.network.hidden
        units = {name: torch.empty(*shape, hidden, dtype=self.dtype) for name in self.network.units}
        self._repack("unpack", list(units.values()), packed)
        return units

    def _repack(self, function: str, units: list[Tensor], packed: Tensor) -> None:
        parts = (ctypes.c_void_p * len(units))(*(self._checked(tensor).data_ptr() for tensor in units))
        sizes = (ctypes.c_int(len(units)), ctypes.c_int(self.network.hidden), ctypes.c_int64(self.coordinates))
        self._run(function, parts, *sizes, packed)

    def forward(
        self, features: Tensor, before: Tensor, after: Tensor, update: Tensor, gates: Tensor | None = None
    ) -> None:
        """One step: features [F, N] and the packed state `before` to `after`, or in place, and `update`, [N].

        The LSTM's gates are written to `gates` where there is such a tensor.
        """
        self.call("forward", features, before, after, update, gates)

    def advance(self, features: Tensor, pieces: Sequence[Sequence[Tensor]], update: Tensor) -> None:
        """One step in place: features [F, N], update [N], N coordinates in pieces one after another.

        Of each piece the state's parts in the order of the network's units, [H, n] each, with rows of any stride.
        """
        parts = [part for piece in pieces for part in piece]
        if any(part.dtype != self.dtype or part.device.type != "cpu" or part.stride(1) != 1 for part in parts):
            raise TypeError(f"the kernels of this network take rows of {self.dtype} on the CPU")
        sizes = (ctypes.c_int64 * len(pieces))(*(piece[0].shape[1] for piece in pieces))
        pointers = (ctypes.c_void_p * len(parts))(*(part.data_ptr() for part in parts))
        strides = (ctypes.c_int64 * len(parts))(*(part.stride(0) for part in parts))
        self.call("advance", ctypes.c_int64(len(pieces)), sizes, pointers, strides, features, update)

    def array(self, *shape: int) -> Tensor:
        """Memory that holds anything."""
        return arrays.array(self.dtype, *shape)


def rows_of(features: Tensor) -> Tensor:
    """Features [..., P, F] as rows of all coordinates, [F, N]: a view of what `LearnedOptimizer.with_theta` gives."""
    return features.movedim(-1, 0).reshape(features.shape[-1], -1)


class NativeTape:
    """One truncation on the CPU kernels. Features of all steps are kept, the state every few steps, and the gates of an
    LSTM where they take little memory.
    """

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, steps: int) -> None:
        self._shape = next(iter(state[name] for name in optimizer.network.units)).shape[:-1]  # type: ignore[union-attr]
        self._net = net = NativeNetwork(optimizer, phi, self._shape.numel())
        self._piece = net.piece
        self._features = net.array(steps, net.network.features, net.coordinates)
        self._updates = net.array(steps, net.coordinates)
        self._gates = net.array(steps, *net.gates_shape) if net.gate_bytes(steps) else None
        self._states = [self._empty_state()] * 2  # of the last step and the one before, in turns
        self._now = self._before = net.pack(state)
        self._kept: list[Tensor] = []  # at the start of every piece
        self._taken = 0

    def _empty_state(self) -> Tensor:
        return self._net.array(self._net.tiles, self._net.rows, self._net.lanes)

    def step(self, features: Tensor, observed: State) -> Tensor:
        net, index = self._net, self._taken
        saved_features = self._features[index]
        saved_features.copy_(rows_of(features))
        if index % self._piece == 0:  # the state is kept; another array takes its turns
            self._kept.append(self._now)
            self._states[(index + 1) % 2] = self._empty_state()
        self._before, self._now = self._now, self._states[index % 2]
        gates = None if self._gates is None else self._gates[index]
        net.forward(saved_features, self._before, self._now, self._updates[index], gates)
        self._taken += 1
        return self._updates[index].view(self._shape)

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        features, clean = self._features[self._taken - 1], self._updates[self._taken - 1]
        moved = rows_of(offset.detach()).clone(memory_format=torch.contiguous_format)
        worst_update = torch.empty_like(clean)
        free = self._net.network.features if ascent.free is None else ascent.free
        box = (float(ascent.epsilon), float(ascent.length), ctypes.c_int(ascent.steps), ctypes.c_int(free))
        self._net.call("ascent", features, self._before, clean, *box, moved, worst_update)
        worst = (features + moved).view(-1, *self._shape)
        return worst.movedim(0, -1), worst_update.view(self._shape)

    def state(self) -> State:
        return self._net.unpack(self._now, self._shape)

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        net, names = self._net, self._net.network.weights
        sizes = [net.phi[name].numel() if name else 0 for name in names]
        starts = [sum(sizes[:index]) if name else -1 for index, name in enumerate(names)]
        offsets = (ctypes.c_int64 * len(names))(*starts)
        sums = net.array(GROUPS, sum(sizes))
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        carried = self._empty_state().zero_()  # slopes of the state
        stacked = net.array(len(slopes), net.coordinates)
        torch.stack([slope.reshape(-1) for slope in slopes], out=stacked)
        beside = self._side(side) if side is not None else None
        last = (ctypes.c_int(GROUPS), sums, offsets, ctypes.c_int64(sum(sizes)))
        for first in reversed(range(0, len(slopes), self._piece)):
            steps = ctypes.c_int(min(self._piece, len(slopes) - first))
            gates = None if self._gates is None else self._gates[first]
            main = (self._features[first], self._kept[first // self._piece], gates, stacked[first], carried)
            other = (beside[0][first], beside[1][first]) if beside is not None else (None, None)
            net.call("backward", steps, *main, *other, *last)
            total += sums.sum(0, dtype=torch.float64)
        give_back([sums, carried, stacked])
        parts = total.to(net.dtype).split(sizes)
        gradient = {name: part for name, part in zip(names, parts, strict=True) if name}
        return {name: gradient[name].view_as(tensor) for name, tensor in net.phi.items()}

    def _side(self, side: SideInput) -> tuple[Tensor, Tensor]:
        features, slopes = torch.zeros_like(self._features), torch.zeros_like(self._updates)
        for index, (elsewhere, slope) in enumerate(zip(side.features, side.slopes, strict=True)):
            if elsewhere is not None and slope is not None:
                features[index], slopes[index] = rows_of(elsewhere), slope.reshape(-1)
        return features, slopes

    def close(self) -> None:
        """The truncation is done with: its memory, that of its updates too, may be used again."""
        memory = [self._features, self._updates, self._now, *self._states, *self._kept]
        memory += [] if self._gates is None else [self._gates]
        give_back(list({part.data_ptr(): part for part in memory if part.numel()}.values()))
        self._features = self._updates = self._now = self._before = torch.empty(0, dtype=self._net.dtype)
        self._states, self._kept, self._gates = [], [], None
