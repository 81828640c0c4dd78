"""Inner steps of a frozen learned optimizer in place, on a block of coordinates whose state lies in pieces.

The state of a piece of n coordinates is one tensor for each name: [n], or rows [K, n] where a coordinate has K numbers,
any distance apart. So a piece can be a part of a longer array, and nothing but the block is ever copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine import kernels
from engine.kernels.dense import DenseNetwork
from engine.kernels.native import NativeNetwork
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo
from engine.tasks.base import Layout

NATIVE_BLOCK = 2**17  # coordinates: enough for two threads, and small beside a model
PLAIN_BLOCK = 2**15  # plain PyTorch takes some hundred numbers for each coordinate while it steps
LARGE_BLOCK = 2**18  # on devices that want much work at once


def block_size(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> int:
    """How many coordinates to take at once."""
    if kernels.goes_native(optimizer, device, dtype):
        return NATIVE_BLOCK
    return PLAIN_BLOCK if device.type == "cpu" else LARGE_BLOCK


def step_in_place(
    optimizer: LearnedOptimizer,
    phi: Phi,
    theta: Tensor,
    grad: Tensor,
    pieces: Sequence[Mapping[str, Tensor]],
    scalars: State,
    mean_square: Tensor | None,
    layout: Layout | None = None,
    info: StepInfo | None = None,
) -> tuple[Tensor, State]:
    """The update, [N], of coordinates at theta, [N], in pieces one after another; their state is moved on in place.

    It is that of the optimizer's `step`: whoever asks for it multiplies by the factors of the tensors.

    `scalars`: what the state holds besides, shapes []; returned as they are after the step. `mean_square`, [1]: that of
    all gradients, where the optimizer's scope asks for it.
    """
    mixed = any(part.dtype != theta.dtype for piece in pieces for part in piece.values())
    if mixed or not kernels.goes_native(optimizer, theta.device, theta.dtype):
        state = {name: _joined(pieces, name) for name in pieces[0]} | scalars
        features, state = _observed(optimizer, theta, grad, state, mean_square, layout, info)
        if not mixed and kernels.goes_dense(optimizer, theta.device, theta.dtype):
            update = torch.empty_like(theta, memory_format=torch.contiguous_format)
            DenseNetwork(optimizer, phi).forward(features.contiguous(), update)
        else:
            update, state = optimizer.step(phi, features, state)
        _write_back(pieces, state)
        return update, {name: state[name] for name in scalars}
    network = optimizer.trusted_network
    assert network is not None
    state = {name: _joined(pieces, name) for name in pieces[0] if name not in network.units} | scalars
    features, state = _observed(optimizer, theta, grad, state, mean_square, layout, info)
    _write_back(pieces, state)
    update = torch.empty_like(theta, memory_format=torch.contiguous_format)
    parts = [[piece[name] for name in network.units] for piece in pieces]
    NativeNetwork(optimizer, phi, len(theta)).advance(features.movedim(-1, 0).contiguous(), parts, update)
    return update, {name: state[name] for name in scalars}


def _observed(
    optimizer: LearnedOptimizer,
    theta: Tensor,
    grad: Tensor,
    state: State,
    mean_square: Tensor | None,
    layout: Layout | None,
    info: StepInfo | None,
) -> tuple[Tensor, State]:
    if mean_square is None:
        return optimizer.observe(theta, grad, state, layout, info)
    return optimizer.observe_part(theta, grad, state, mean_square)


def _joined(pieces: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """A part of the state as the optimizer knows it: [N, K], or [N]."""
    rows = [piece[name] for piece in pieces]
    joined = rows[0] if len(rows) == 1 else torch.cat(rows, -1)
    return joined if joined.dim() == 1 else joined.T


def _write_back(pieces: Sequence[Mapping[str, Tensor]], state: State) -> None:
    """Each piece's share of the state; what the state does not hold stays as it is."""
    for name in pieces[0]:
        if name in state:
            rows = [piece[name] for piece in pieces]
            shares = state[name].split_with_sizes([row.shape[-1] for row in rows])
            torch._foreach_copy_(rows, [share if share.dim() == 1 else share.T for share in shares])
