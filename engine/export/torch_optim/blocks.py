"""Blocks of coordinates: what a step takes at once, made of pieces of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.export.torch_optim.gradients import Share
from engine.export.torch_optim.layout import INNER_STEP, Tails, local
from engine.optimizers.learned.base import LearnedOptimizer, State

Size = Callable[[LearnedOptimizer, torch.device, torch.dtype], int]


@dataclass
class BlockPiece:
    """Some coordinates of a parameter, [n]."""

    share: Share
    flat: Tensor
    grad: Tensor
    state: State
    moving: Tensor | None = None


@dataclass
class CoordinateBlock:
    """Pieces of one device and precision, at one point of time of the learned optimizer."""

    device: torch.device
    dtype: torch.dtype
    pieces: list[BlockPiece] = field(default_factory=list)

    @property
    def state(self) -> list[State]:
        return [piece.state for piece in self.pieces]

    def theta(self) -> Tensor:
        """[N]; the parameter's own memory where the block is one piece in full precision."""
        return _joined([piece.flat.to(self.dtype) for piece in self.pieces])

    def gradient(self) -> Tensor:
        return _joined([piece.grad for piece in self.pieces])

    def apply(self, theta: Tensor, update: Tensor) -> None:
        """Move the parameters: `theta` is where they were, `update` is used up."""
        sizes = [piece.flat.numel() for piece in self.pieces]
        starts, parts = theta.split_with_sizes(sizes), update.split_with_sizes(sizes)
        for piece, before, part in zip(self.pieces, starts, parts, strict=True):
            factor, decay = piece.share.factor, piece.share.decay
            if factor != 1:
                part.mul_(factor)
            if piece.moving is not None:
                part.mul_(piece.moving)
            if piece.flat.dtype == self.dtype:
                if decay:
                    piece.flat.mul_(1 - decay)
                piece.flat.add_(part)
            else:  # half precision is rounded once
                piece.flat.copy_(part.add_(before, alpha=1 - decay))


def of(
    optimizer: LearnedOptimizer,
    shares: Sequence[Share],
    states: Mapping[Tensor, State],
    tails: Tails,
    size: Size,
) -> Iterator[CoordinateBlock]:
    """All coordinates of all shares in blocks: as the optimizer's scope allows, in one, whole tensors, or any parts.

    Raises RuntimeError where one is not enough for an optimizer that looks at all of them.
    """
    scope = optimizer.trusted_scope
    held = [share for share in shares if share.grad.numel()]
    if scope == "all" and held:
        yield _in_one(optimizer, held, states, tails)
        return
    kinds: dict[tuple[torch.device, torch.dtype, tuple[float, ...]], list[Share]] = {}
    for share in held:
        kinds.setdefault((share.row.flat.device, share.dtype, share.scalars), []).append(share)
    for (device, dtype, _), alike in kinds.items():
        block, most = CoordinateBlock(device, dtype), size(optimizer, device, dtype)
        yield from _cut(block, alike, states, tails, most, whole=scope == "tensor")


def _in_one(
    optimizer: LearnedOptimizer, shares: Sequence[Share], states: Mapping[Tensor, State], tails: Tails
) -> CoordinateBlock:
    """A block of all shares, in double precision if one of them is."""
    devices = {share.row.flat.device for share in shares}
    shared = [name for name, tail in tails.items() if tail is None and name != INNER_STEP]  # by all coordinates
    ages = {tuple(states[share.parameter][name].float().item() for name in shared) for share in shares}
    if len(devices) > 1 or len(ages) > 1:
        raise RuntimeError(f"{optimizer.name} looks at all coordinates: they must be of one device and age")
    dtype = torch.float64 if any(share.dtype == torch.float64 for share in shares) else torch.float32
    (block,) = _cut(CoordinateBlock(devices.pop(), dtype), shares, states, tails, None)
    return block


def _cut(
    block: CoordinateBlock,
    shares: Sequence[Share],
    states: Mapping[Tensor, State],
    tails: Tails,
    most: int | None,
    *,
    whole: bool = False,
) -> Iterator[CoordinateBlock]:
    """Blocks of no more than `most` coordinates; `whole`: of whole parameters, one at least."""
    room = most
    for share in shares:
        state = states[share.parameter]
        rows = {name: share.row.rows(local(state[name])) for name, tail in tails.items() if tail is not None}
        first, size = 0, share.grad.numel()
        if whole and room is not None:
            if block.pieces and size > room:
                yield block
                block, room = CoordinateBlock(block.device, block.dtype), most
            room = max(room or 0, size)
        while first < size:
            after = size if room is None else min(size, first + room)
            part = {name: row[..., first:after] for name, row in rows.items()} if after - first < size else rows
            moving = None if share.moving is None else share.moving[first:after]
            block.pieces.append(
                BlockPiece(share, share.row.flat[first:after], share.gradient(first, after), part, moving)
            )
            room = None if room is None else room - (after - first)
            first = after
            if room == 0:
                yield block
                block, room = CoordinateBlock(block.device, block.dtype), most
    if block.pieces:
        yield block


def as_mean(mean_square: float | Tensor, block: CoordinateBlock) -> Tensor:
    """The mean square of all gradients, [1], for a block."""
    if isinstance(mean_square, Tensor):
        return mean_square.to(block.device, block.dtype)
    return torch.tensor([mean_square], dtype=block.dtype, device=block.device)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
