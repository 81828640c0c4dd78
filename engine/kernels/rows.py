"""A tape in plain PyTorch for the networks that the compiled kernels know: where these cannot be built.

Everything lies in rows of coordinates, so that a gate is a few whole rows; what the way back needs is kept, in memory
that is used over and over, and the slopes are written out: no graph, nothing computed twice. Coordinates are taken in
blocks whose rows stay in a core's cache.

Shape letters: n coordinates of a block, F input features, H hidden units, G rows of gates (4 H; of the tanh RNN H).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.kernels.arrays import array, give_back
from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Network, Phi, State

BLOCK = 2**12  # coordinates

Units = list[Tensor]
"""h and c of every layer, or h of the RNN's, [H, n] each, in the order of the network's units."""


def numbers_kept(network: Network) -> int:
    """Numbers that a tape keeps of a coordinate-step."""
    return sum(map(sum, _sizes(network)))


def _sizes(network: Network) -> tuple[list[int], list[int]]:
    """Rows of what is kept of a step, and of its inputs and gates by layer. What a matrix with biases is multiplied by
    has a row of ones."""
    hidden, ones = network.hidden, int(network.cell == "lstm")
    of_layer = [hidden + 1, hidden, 4 * hidden, hidden] if ones else [hidden]
    first = [network.features + ones, (hidden + ones) * network.entrance, 1, 1]
    return first, of_layer * network.layers


class Saved:
    """What the way back needs of a step: views of one array, and the state before it."""

    def __init__(self, network: Network, features: Tensor, before: Units) -> None:
        """`features`: [F, n]."""
        hidden, ones = network.hidden, int(network.cell == "lstm")
        self.array = array(features.dtype, numbers_kept(network), features.shape[1])
        first, layers = _sizes(network)
        padded_features, entered, update, slope, *parts = self.array.split_with_sizes(first + layers)
        outputs = parts[::4] if ones else parts
        with_ones = [padded_features, *([entered] if network.entrance else []), *outputs]
        if ones:
            for rows in with_ones:
                rows[-1] = 1.0
        self.features = padded_features[: network.features].copy_(features)
        self.padded_features = padded_features  # [F + 1, n]
        self.entered = entered[:hidden]  # after the entrance, [H, n]
        self.inputs = with_ones[network.entrance : -1]  # of every layer, [fan in + 1, n]
        self.outputs = [rows[:hidden] for rows in outputs]  # [H, n]
        self.gates = parts[2::4] if ones else outputs  # [G, n], after their sigmoid or tanh
        self.each_gate = [gates.chunk(4) for gates in self.gates]
        self.squashed = parts[3::4] if ones else []  # tanh(c)
        self.before = before
        self.after: Units = self.outputs
        if ones:
            self.after = [part for pair in zip(self.outputs, parts[1::4], strict=True) for part in pair]
        self.update, self.slope = update[0], slope[0]  # [n]; the latter of the update by the head's output


class Rows:
    """The network's mathematics and its meta-parameters: matrices with a last row of biases where there are any."""

    def __init__(self, network: Network, phi: Phi) -> None:
        self.network = network
        self.lstm = network.cell == "lstm"
        self.stride = 2 if self.lstm else 1  # units of a layer
        weights = [phi[name].detach() if name else None for name in network.weights]
        pairs = [weights[:2]] if network.entrance else []  # matrices and their biases
        cells = weights[2 * network.entrance : -2]
        pairs += [list(pair) for pair in zip(cells[::3], cells[2::3], strict=True)]
        joined = [torch.cat([m, b[None]]) if b is not None else m for m, b in pairs if m is not None]
        self.entrance = joined[0] if network.entrance else None  # [F + 1, H]
        self.into = joined[network.entrance :]  # [fan in + 1, G]
        self.across = [matrix for matrix in cells[1::3] if matrix is not None]  # [H, G]
        self.head, self.head_bias = phi["head.weight"].detach(), weights[-1]  # [H, 1], [1]

    def zeros(self) -> list[Tensor]:
        """Sums for the gradient by phi: of entrance, of `into` and `across`, of the head and its bias."""
        entrance = [] if self.entrance is None else [self.entrance]
        bias = [] if self.head_bias is None else [self.head_bias]
        return [torch.zeros_like(part) for part in (*entrance, *self.into, *self.across, self.head, *bias)]

    def gradient(self, sums: list[Tensor]) -> Phi:
        """Such sums under phi's names."""
        network, parts = self.network, iter(sums)
        gradient = {}
        if network.entrance:
            gradient["pre.weight"], gradient["pre.bias"] = _parted(next(parts))
        names = [f"lstm{layer}" for layer in range(network.layers)] if self.lstm else ["rnn"]
        for name in names:
            if self.lstm:
                gradient[f"{name}.input"], gradient[f"{name}.bias"] = _parted(next(parts))
            else:
                gradient[f"{name}.input"] = next(parts)
        gradient |= {f"{name}.hidden": next(parts) for name in names}
        return gradient | dict(zip(("head.weight", "head.bias"), parts, strict=False))

    def recurrent(self, before: Units) -> Units:
        """What enters the gates of every layer from the state, [G, n]."""
        return [across.T @ h for across, h in zip(self.across, before[:: self.stride], strict=True)]

    def forward(self, saved: Saved, recurrent: Units | None = None) -> Tensor:
        """The update, [n], from the features and the state that are in `saved`; fills in the rest of it."""
        network, hidden = self.network, self.network.hidden
        if self.entrance is not None:
            torch.nn.functional.elu_(torch.mm(self.entrance.T, saved.padded_features, out=saved.entered))
        for layer, gates in enumerate(saved.gates):
            if recurrent is not None:
                torch.addmm(recurrent[layer], self.into[layer].T, saved.inputs[layer], out=gates)
            else:
                torch.mm(self.into[layer].T, saved.inputs[layer], out=gates)
                gates.addmm_(self.across[layer].T, saved.before[layer * self.stride])
            if not self.lstm:
                gates.tanh_()
                continue
            enter, forget, cell, leave = saved.each_gate[layer]
            gates[: 2 * hidden].sigmoid_()
            cell.tanh_()
            leave.sigmoid_()
            c = torch.mul(forget, saved.before[2 * layer + 1], out=saved.after[2 * layer + 1]).addcmul_(enter, cell)
            torch.mul(leave, torch.tanh(c, out=saved.squashed[layer]), out=saved.outputs[layer])
        torch.mv(saved.outputs[-1].T, self.head[:, 0], out=saved.update)
        if self.head_bias is not None:
            saved.update += self.head_bias
        saved.slope.fill_(network.scale)
        if network.squashed:
            saved.update.tanh_()
            saved.slope.mul_(1 - saved.update**2)
        return saved.update.mul_(network.scale)

    def backward(
        self, saved: Saved, slope: Tensor, after: Units | None, sums: list[Tensor] | None
    ) -> tuple[Units, Tensor]:
        """The slopes of the state before the step and of the features, from that of the update, [n], and those of the
        state `after` it (None: it goes nowhere). Those of phi are added to `sums`."""
        layers, entrances = self.network.layers, self.network.entrance
        raw = saved.slope * slope
        above = self.head * raw  # [H, n]
        if sums is not None:
            sums[entrances + 2 * layers][:, 0].addmv_(saved.outputs[-1], raw)
            if self.lstm:
                sums[-1] += raw.sum()
        before: Units = [above] * len(saved.before)
        for layer in reversed(range(layers)):
            at = layer * self.stride
            d_h = above if after is None else above.add_(after[at])
            gates, before[at + self.stride - 1] = self._slopes_of_gates(saved, layer, d_h, after)
            if sums is not None:
                sums[entrances + layer].addmm_(saved.inputs[layer], gates.T)
                sums[entrances + layers + layer].addmm_(saved.before[at], gates.T)
            above = self._without_biases(self.into[layer]) @ gates
            before[at] = self.across[layer] @ gates
        if self.entrance is not None:
            above *= torch.where(saved.entered > 0, 1.0, saved.entered + 1.0)
            if sums is not None:
                sums[0].addmm_(saved.padded_features, above.T)
            above = self._without_biases(self.entrance) @ above
        return before, above

    def _without_biases(self, matrix: Tensor) -> Tensor:
        return matrix[:-1] if self.lstm else matrix

    def _slopes_of_gates(self, saved: Saved, layer: int, d_h: Tensor, after: Units | None) -> tuple[Tensor, Tensor]:
        """From the slope of h, [H, n], and that of c in `after`: those of what enters the gates, [G, n], and of the c
        before (of the RNN nothing of use)."""
        sigmoid, tanh = torch.ops.aten.sigmoid_backward.grad_input, torch.ops.aten.tanh_backward.grad_input
        slopes = torch.empty_like(saved.gates[layer])
        if not self.lstm:
            tanh(d_h, saved.outputs[layer], grad_input=slopes)
            return slopes, slopes
        hidden, gates, squashed = self.network.hidden, saved.gates[layer], saved.squashed[layer]
        enter, forget, cell, leave = saved.each_gate[layer]
        of_enter, of_forget, of_cell, of_leave = slopes.chunk(4)
        d_c = torch.mul(d_h, leave)
        tanh(d_c, squashed, grad_input=d_c)
        if after is not None:
            d_c += after[2 * layer + 1]
        torch.mul(d_c, cell, out=of_enter)
        torch.mul(d_c, saved.before[2 * layer + 1], out=of_forget)
        sigmoid(slopes[: 2 * hidden], gates[: 2 * hidden], grad_input=slopes[: 2 * hidden])
        tanh(torch.mul(d_c, enter, out=of_cell), cell, grad_input=of_cell)
        sigmoid(torch.mul(d_h, squashed, out=of_leave), leave, grad_input=of_leave)
        return slopes, d_c.mul_(forget)


def _parted(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix and the biases in its last row."""
    return matrix[:-1], matrix[-1]


class RowsTape:
    """One truncation. What every step keeps are rows of all blocks' own arrays."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, steps: int) -> None:
        network = optimizer.trusted_network
        assert network is not None
        self._network, self._rows = network, Rows(network, phi)
        parts = [state[name] for name in network.units]
        self._shape = parts[0].shape[:-1]
        flat = [part.reshape(-1, network.hidden).T for part in parts]  # [H, N]
        self._blocks = [slice(at, at + BLOCK) for at in range(0, self._shape.numel(), BLOCK)]
        self._start = [[part[:, block].contiguous() for part in flat] for block in self._blocks]
        self._kept: list[list[Saved]] = []  # of every step, of every block

    @torch.no_grad()
    def step(self, features: Tensor, observed: State) -> Tensor:
        flat = features.reshape(-1, features.shape[-1]).T
        last = [saved.after for saved in self._kept[-1]] if self._kept else self._start
        self._kept.append([Saved(self._network, flat[:, block], before) for block, before in self._pairs(last)])
        updates = [self._rows.forward(saved) for saved in self._kept[-1]]
        return torch.cat(updates).view(self._shape)

    def _pairs(self, units: list[Units]) -> Iterator[tuple[slice, Units]]:
        return zip(self._blocks, units, strict=True)

    @torch.no_grad()
    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        flat = offset.reshape(-1, offset.shape[-1]).T
        ends = [self._ascend(step, flat[:, at], ascent) for at, step in zip(self._blocks, self._kept[-1], strict=True)]
        features, updates = (torch.cat(parts, -1) for parts in zip(*ends, strict=True))
        return features.T.reshape(offset.shape), updates.view(self._shape)

    def _ascend(self, clean: Saved, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        """The worst features, [F, n], of a block from `offset` on, and the update there."""
        moved, recurrent = (
            Saved(self._network, clean.features + offset, clean.before),
            self._rows.recurrent(clean.before),
        )
        for _ in range(ascent.steps):
            change = 2 * (self._rows.forward(moved, recurrent) - clean.update)
            uphill = self._rows.backward(moved, change, None, None)[1].sign_()
            uphill[len(uphill) if ascent.free is None else ascent.free :] = 0.0
            offset = (offset + ascent.length * uphill).clamp_(-ascent.epsilon, ascent.epsilon)
            torch.add(clean.features, offset, out=moved.features)
        end = moved.features.clone(), self._rows.forward(moved, recurrent).clone()
        give_back([moved.array])
        return end

    def state(self) -> State:
        last = [saved.after for saved in self._kept[-1]] if self._kept else self._start
        parts = [torch.cat(blocks, 1).T for blocks in zip(*last, strict=True)]
        shape = (*self._shape, self._network.hidden)
        return {name: part.reshape(shape) for name, part in zip(self._network.units, parts, strict=True)}

    @torch.no_grad()
    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        sums = self._rows.zeros()
        for number, block in enumerate(self._blocks):
            carried: Units | None = None
            for index in reversed(range(len(slopes))):
                saved = self._kept[index][number]
                before, _ = self._rows.backward(saved, slopes[index].reshape(-1)[block], carried, sums)
                if side is not None and (elsewhere := side.features[index]) is not None:
                    slope = side.slopes[index]
                    assert slope is not None
                    other = Saved(self._network, elsewhere.reshape(-1, elsewhere.shape[-1]).T[:, block], saved.before)
                    self._rows.forward(other)
                    beside, _ = self._rows.backward(other, slope.reshape(-1)[block], None, sums)
                    torch._foreach_add_(before, beside)
                    give_back([other.array])
                carried = before
        return self._rows.gradient(sums)

    def close(self) -> None:
        """The truncation is done with: its memory may be used again."""
        give_back([saved.array for step in self._kept for saved in step])
        self._kept = []
