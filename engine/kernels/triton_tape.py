"""A tape on the Triton kernels of triton_lstm.py, for CUDA. Whether it is taken is for its trial to say (trial.py)."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Network, Phi, State

PROGRAMS = 128  # that pull back: a fixed number, because each adds up its own gradients
BLOCK = 32  # coordinates: with more, not even the forward step of 20 units fits into the registers
WARPS = {"forward": 8, "backward": 8, "ascent": 8}  # with 4 ptxas spills the forward step of 2 x 20 units (sm_90)
MOST_FEATURES, MOST_UNITS, MOST_LAYERS = 8, 32, 4
PADDED_FEATURES = 16  # the least that a product of tiles takes
ALIGNED = 4  # numbers: a step's begin at 16 bytes, else Triton compiles kernels for every other step anew
LARGEST_LINE = 2**34  # bytes of the states of a truncation; more are computed anew, piece by piece
SHARE = 8  # likewise more than an eighth of the device's memory


def supports(network: Network | None, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels know this network, on this device, in this precision."""
    if network is None or network.cell != "lstm":
        return False
    if network.features > MOST_FEATURES or network.hidden > MOST_UNITS or network.layers > MOST_LAYERS:
        return False
    if not interpreted():
        if device.type != "cuda" or torch.version.cuda is None or dtype != torch.float32:
            return False
        if torch.cuda.get_device_capability(device) < (8, 0):
            return False
    return dtype in (torch.float32, torch.float64) and importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on any device: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_recorded(device: torch.device) -> bool:
    """Whether a CUDA graph is being recorded: nothing may wait for the device."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def largest_line(device: torch.device) -> int:
    """Bytes that the states of a truncation may take."""
    if device.type != "cuda":
        return LARGEST_LINE
    return min(LARGEST_LINE, torch.cuda.get_device_properties(device).total_memory // SHARE)


class TritonNetwork:
    """A learned optimizer's network with its meta-parameters, on a number of coordinates, as the kernels take it."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, coordinates: int) -> None:
        network = optimizer.network
        assert network is not None
        self.network = network
        self.coordinates = coordinates
        self.phi = {name: tensor.detach() for name, tensor in phi.items()}
        self.like = self.phi["head.weight"]
        self.padded = max(16, 1 << (network.hidden - 1).bit_length())
        self._sizes = {
            "F": network.features,
            "FP": PADDED_FEATURES,
            "H": network.hidden,
            "HP": self.padded,
            "LAYERS": network.layers,
            "ENTRANCE": network.entrance,
            "SQUASHED": network.squashed,
        }
        first = self.padded if network.entrance else PADDED_FEATURES
        tiles = 2 * network.layers - 1  # of 4 gates, and the first layer's
        self.size = self.padded * (4 * network.layers + 3 + PADDED_FEATURES + 4 * (tiles * self.padded + first))
        self.weights = self.like.new_zeros(self.size)
        for name, view in self._places(self.weights).items():
            view.copy_(_by_gate(name, self.phi[name]))

    def _places(self, flat: Tensor) -> dict[str, Tensor]:
        """Where each meta-parameter lies in the padded weights, [size]: views, shapes of `_by_gate`."""
        network, padded = self.network, self.padded
        layers, units = network.layers, network.hidden
        parts = flat.split([4 * padded] * layers + [padded] * 3 + [flat.numel() - padded * (4 * layers + 3)])
        head, bias = parts[layers], parts[layers + 1]
        places = {"head.weight": head[None, :units], "head.bias": bias[None, :1]}
        if network.entrance:
            entrance = parts[-1][: PADDED_FEATURES * padded].view(PADDED_FEATURES, padded)
            places |= {"pre.bias": parts[layers + 2][None, :units]}
            places |= {"pre.weight": entrance[: network.features, :units]}
        cells = parts[-1][PADDED_FEATURES * padded :]
        for layer in range(layers):
            rows = network.features if layer == 0 and not network.entrance else units
            inputs = cells[4 * padded**2 * (layers + (layer - 1) % layers) :]
            inputs = inputs[: 4 * padded**2] if layer or network.entrance else inputs
            hidden = cells[4 * padded**2 * layer :][: 4 * padded**2]
            places[f"lstm{layer}.bias"] = parts[layer].view(4, 1, padded)[..., :units]
            places[f"lstm{layer}.hidden"] = hidden.view(4, padded, padded)[:, :units, :units]
            places[f"lstm{layer}.input"] = inputs.view(4, -1, padded)[:, :rows, :units]
        return places

    def gradient(self, partial: Tensor) -> Phi:
        """Gradients by phi from the programs' sums, [programs, size]."""
        total = partial.sum(0, dtype=torch.float64).to(self.like.dtype)
        gradient = {name: torch.empty_like(tensor) for name, tensor in self.phi.items()}
        for name, view in self._places(total).items():
            _by_gate(name, gradient[name]).copy_(view)
        return gradient

    def pack(self, state: State) -> Tensor:
        """The units of an optimizer state, [..., P, H] each, as [units, N, H]."""
        flat = [state[name].detach().reshape(self.coordinates, self.network.hidden) for name in self.network.units]
        return torch.stack(flat)

    def unpack(self, packed: Tensor, shape: Sequence[int]) -> State:
        """The other way round, a copy; `shape` is [..., P]."""
        hidden = self.network.hidden
        return {n: part.reshape(*shape, hidden).clone() for n, part in zip(self.network.units, packed, strict=True)}

    def forward(self, features: Tensor, before: Tensor, after: Tensor, update: Tensor) -> None:
        """One step: features [N, F] and the packed state `before` to `after` and `update`, [N]."""
        tensors = (self.weights, features, before, after, update)
        self._call("forward", self._blocks, *tensors, *self._numbers)

    def backward(
        self, features: Tensor, states: tuple[Tensor, Tensor], slope: Tensor, slopes: tuple[Tensor, Tensor],
        through: Tensor, partial: Tensor, alone: bool,
    ) -> None:  # fmt: skip
        """One step pulled back: slopes of the state after, and where those of the state before go; see the kernel."""
        tensors = (self.weights, features, *states, slope, *slopes, through, partial)
        numbers = (*self._numbers, self.size, alone)
        self._call("backward", partial.shape[0], *tensors, *numbers)

    def ascend(self, center: Tensor, before: Tensor, clean: Tensor, offset: Tensor, ascent: BoxAscent) -> list[Tensor]:
        """The features found, [N, F], and the update there, [N]."""
        worst_features, worst_update = torch.empty_like(center), torch.empty_like(clean)
        free = self.network.features if ascent.free is None else ascent.free
        tensors = (self.weights, center, before, clean, offset, worst_features, worst_update)
        numbers = (*self._numbers, float(ascent.epsilon), float(ascent.length), ascent.steps, free)
        self._call("ascent", self._blocks, *tensors, *numbers)
        return [worst_features, worst_update]

    @property
    def programs(self) -> int:
        """How many pull back, each with sums of its own."""
        return min(PROGRAMS, self._blocks)

    @property
    def _numbers(self) -> tuple[int, float]:
        return self.coordinates, self.network.scale

    @property
    def _blocks(self) -> int:
        return -(-self.coordinates // BLOCK)

    def _call(self, name: str, programs: int, *arguments: object) -> None:
        from engine.kernels import triton_lstm  # Triton is loaded late: not every machine has it

        kernel, options = getattr(triton_lstm, name), {"num_warps": WARPS[name], "num_stages": 1}
        with torch.cuda.device_of(self.weights):
            kernel[(programs,)](*arguments, **self._sizes, BLOCK=BLOCK, **options, enable_fp_fusion=True)


def _by_gate(name: str, tensor: Tensor) -> Tensor:
    """A meta-parameter as the kernels have it, a view: [4, rows, H] in a cell, else [rows, columns]."""
    if name.startswith("lstm"):
        return tensor.view(-1, 4, tensor.shape[-1] // 4).transpose(0, 1)
    return tensor.t() if name == "head.weight" else tensor.view(-1, tensor.shape[-1])


class TritonTape:
    """One truncation on the Triton kernels. Features of all steps are kept; states too, or those of every few steps."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, steps: int) -> None:
        self._shape = next(iter(state[name] for name in optimizer.network.units)).shape[:-1]  # type: ignore[union-attr]
        self._net = net = TritonNetwork(optimizer, phi, self._shape.numel())
        start = net.pack(state)
        line = (steps + 1) * start.numel() * start.element_size()
        self._piece = steps if line <= largest_line(start.device) else math.isqrt(steps - 1) + 1
        room = -(-net.coordinates // ALIGNED) * ALIGNED
        self._features = start.new_empty(steps, room, net.network.features)[:, : net.coordinates]
        self._updates = start.new_empty(steps, room)[:, : net.coordinates]
        self._line = start.new_empty(min(self._piece, steps) + 1, *start.shape)  # states of the piece at hand
        self._line[0] = start
        self._kept = [start]  # at the start of every piece
        self._at_hand = 0
        self._taken = 0

    def step(self, features: Tensor, observed: State) -> Tensor:
        piece, index = divmod(self._taken, self._piece)
        if piece == len(self._kept):
            self._kept.append(self._line[self._piece].clone())
            self._line[0] = self._kept[piece]
            self._at_hand = piece
        self._features[self._taken].copy_(features.reshape(self._features.shape[1:]))
        self._run(self._taken, index)
        self._taken += 1
        return self._updates[self._taken - 1].view(self._shape)

    def _run(self, step: int, index: int) -> None:
        self._net.forward(self._features[step], self._line[index], self._line[index + 1], self._updates[step])

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        features, clean = self._features[self._taken - 1], self._updates[self._taken - 1]
        before = self._line[self._bring(self._taken - 1)]
        start = offset.detach().reshape(features.shape).contiguous()
        worst_features, worst_update = self._net.ascend(features, before, clean, start, ascent)
        return worst_features.view(offset.shape), worst_update.view(self._shape)

    def state(self) -> State:
        if self._taken == 0:
            return self._net.unpack(self._kept[0], self._shape)
        return self._net.unpack(self._line[self._bring(self._taken - 1) + 1], self._shape)

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        net = self._net
        partial = net.weights.new_zeros(net.programs, net.size)
        carried, spare = torch.zeros_like(self._line[0]), torch.empty_like(self._line[0])
        through = torch.empty_like(carried[:2])
        for step in reversed(range(len(slopes))):
            index = self._bring(step)
            states = (self._line[index], self._line[index + 1])
            slope = slopes[step].detach().reshape(-1).contiguous()
            net.backward(self._features[step], states, slope, (carried, spare), through, partial, False)
            carried, spare = spare, carried
            if side is not None and (elsewhere := side.features[step]) is not None:
                features = elsewhere.detach().reshape(self._features.shape[1:]).contiguous()
                beside = side.slopes[step]
                assert beside is not None
                self._pull_side(features, states[0], beside, (carried, spare), through, partial)
                carried, spare = spare, carried
        return net.gradient(partial)

    def _pull_side(
        self, features: Tensor, before: Tensor, slope: Tensor, slopes: tuple[Tensor, Tensor], through: Tensor,
        partial: Tensor,
    ) -> None:  # fmt: skip
        """A step whose state goes nowhere; its slopes of the state before are added."""
        after, update = torch.empty_like(before), torch.empty_like(self._updates[0])
        self._net.forward(features, before, after, update)
        flat = slope.detach().reshape(-1).contiguous()
        self._net.backward(features, (before, after), flat, slopes, through, partial, True)

    def _bring(self, step: int) -> int:
        """Have the states of the piece of a step at hand, computed anew if they are not; the step's place in it."""
        piece, index = divmod(step, self._piece)
        if piece != self._at_hand:
            first = piece * self._piece
            self._line[0] = self._kept[piece]
            for number in range(min(self._piece, self._taken - first)):
                self._run(first + number, number)
            self._at_hand = piece
        return index

    def close(self) -> None:
        """Nothing to do: the memory goes with the tape."""
