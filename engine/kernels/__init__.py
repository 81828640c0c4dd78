"""Kernels: a learned optimizer's network without autograd's graph, as fast as the machine allows.

Which way is taken is decided here: `LREG_KERNELS` is auto (what is fastest and right: on CUDA by a trial, `trial.py`),
native (C++, CPU), rows (plain PyTorch on the CPU, slopes written out), triton (CUDA), recompute (plain PyTorch, little
memory) or plain (autograd's graph through the truncation: the reference).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch

from engine.base.errors import LregError
from engine.kernels import dense, linear, triton_tape
from engine.kernels.build import is_prebuilt, isa_of, library
from engine.kernels.compiler import BuildError
from engine.kernels.dense import DenseSteps, DenseTape
from engine.kernels.linear import LinearSteps
from engine.kernels.native import NativeTape, supports
from engine.kernels.recompute import ALIVE, RecomputeTape
from engine.kernels.rows import RowsTape, numbers_kept
from engine.kernels.steps import NativeSteps, PlainSteps, Steps
from engine.kernels.tape import Tape
from engine.kernels.trial import Trial, subject, trial_of
from engine.kernels.tried_tape import TriedTape
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State
from engine.tasks.base import Layout

WAYS = ("auto", "native", "rows", "triton", "recompute", "plain")
TRITON = "Triton"
TRITON_FILES = tuple(Path(__file__).with_name(f"triton_{part}.py") for part in ("lstm", "tape", "tiles"))
LARGEST_GRAPH = 2**31  # bytes that a truncation's graph may take before it is computed anew instead


def chosen() -> str:
    """LREG_KERNELS. Raises LregError where it names no way."""
    way = os.environ.get("LREG_KERNELS", "auto") or "auto"
    if way not in WAYS:
        raise LregError(f"LREG_KERNELS: found {way!r}; allowed: {', '.join(WAYS)}")
    return way


def tape(
    optimizer: LearnedOptimizer, phi: Phi, state: State, theta: torch.Tensor, steps: int, *, ascends: bool = False
) -> Tape | None:
    """A tape for a truncation of `steps` from `state` at theta, [B, P]; None: autograd's graph does as well.

    `ascends`: whether update penalties will ask it to.
    """
    if _goes_native(optimizer, phi, state, theta):
        return NativeTape(optimizer, phi, state, steps)
    if not ascends and _alike(optimizer, phi, state, theta) and goes_dense(optimizer, theta.device, theta.dtype):
        return DenseTape(optimizer, phi, theta, steps)
    way = chosen()
    if way == "triton":
        if not triton_tape.supports(optimizer.trusted_network, theta.device, theta.dtype):
            raise LregError(
                "LREG_KERNELS=triton: only for dm and rnnprop of up to 32 units on a CUDA device, in float32"
            )
        return triton_tape.TritonTape(optimizer, phi, state, steps)
    plain = _plain_way(optimizer, state, theta.device, theta.dtype, steps)
    if _alike(optimizer, phi, state, theta):
        trial = triton_trial(optimizer, state, theta.device, theta.dtype, ascends=ascends)
        if trial is not None and triton_tape.is_recorded(theta.device):
            if trial.takes_kernel:
                return triton_tape.TritonTape(optimizer, phi, state, steps)  # checked where it is not recorded
        elif trial is not None and (trial.is_open or trial.takes_kernel):
            return TriedTape(trial, triton_tape.TritonTape, plain != "recompute", optimizer, phi, state, steps)
    if plain == "rows" and _alike(optimizer, phi, state, theta):
        return RowsTape(optimizer, phi, state, steps)
    return RecomputeTape(optimizer, phi, state, steps) if plain == "recompute" else None


def triton_trial(
    optimizer: LearnedOptimizer, state: State, device: torch.device, dtype: torch.dtype, *, ascends: bool
) -> Trial | None:
    """The trial of the Triton kernels for an optimizer's truncations from `state`; None where they are no candidate."""
    network = optimizer.trusted_network
    if chosen() != "auto" or network is None or not optimizer.coordinatewise:
        return None
    if not triton_tape.supports(network, device, dtype):
        return None
    coordinates = state[network.units[0]].numel() // network.hidden
    parts = [f"{network.cell} of {network.layers} x {network.hidden} units on {network.features} features"]
    parts += ["entrance"] * network.entrance + ["squashed"] * network.squashed + ["smoothness penalty"] * ascends
    work = f"{', '.join(parts)}, up to 2^{(coordinates - 1).bit_length()} coordinates"
    return trial_of(subject(TRITON, work, device, dtype, *TRITON_FILES))


def tape_way(
    optimizer: LearnedOptimizer,
    state: State,
    device: torch.device,
    dtype: torch.dtype,
    steps: int,
    *,
    ascends: bool = False,
) -> str:
    """How a truncation of `steps` is taped on a device: native, dense (`mlp`), rows, triton, recompute, or plain, by
    autograd's graph.

    `state`: the optimizer's, also on the meta device.
    """
    if goes_native(optimizer, device, dtype):
        return "native"
    if not ascends and goes_dense(optimizer, device, dtype):
        return "dense"
    if chosen() == "triton":
        return "triton"
    trial = triton_trial(optimizer, state, device, dtype, ascends=ascends)
    if trial is not None and trial.takes_kernel:
        return "triton"
    return _plain_way(optimizer, state, device, dtype, steps)


def _plain_way(optimizer: LearnedOptimizer, state: State, device: torch.device, dtype: torch.dtype, steps: int) -> str:
    """How PyTorch alone tapes a truncation: rows, recompute (piece by piece, keeping no graph) or plain."""
    way, network = chosen(), optimizer.trusted_network
    if way in ("auto", "rows") and network is not None and supports(network, device, dtype):
        coordinates = state[network.units[0]][..., 0].numel()
        if way == "rows" or steps * coordinates * numbers_kept(network) * dtype.itemsize <= LARGEST_GRAPH:
            return "rows"
    graph = steps * ALIVE * sum(value.numel() * value.element_size() for value in state.values())
    anew = way == "recompute" or (way == "auto" and graph > LARGEST_GRAPH)
    return "recompute" if optimizer.coordinatewise and anew else "plain"


def steps(
    optimizer: LearnedOptimizer, phi: Phi, state: State, theta: torch.Tensor, layout: Layout | None = None
) -> Steps:
    """A frozen learned optimizer that goes on from `state` at theta, [..., P]; or M of them, phi [M, ...], in one call,
    where `takes_many` says so."""
    if _is_linear(optimizer, theta, phi):
        return LinearSteps(optimizer, phi, state, layout)
    if _alike(optimizer, phi, state, theta) and goes_dense(optimizer, theta.device, theta.dtype):
        return DenseSteps(optimizer, phi, state, layout)
    return (NativeSteps if _goes_native(optimizer, phi, state, theta) else PlainSteps)(optimizer, phi, state, layout)


def takes_many(optimizer: LearnedOptimizer, phi: Phi, theta: torch.Tensor) -> bool:
    """Whether `steps` takes many learned optimizers at once, phi [M, ...] and theta [M, ..., P]."""
    return _is_linear(optimizer, theta, phi)


def _is_linear(optimizer: LearnedOptimizer, theta: torch.Tensor, phi: Phi) -> bool:
    alike = all(tensor.dtype == theta.dtype and tensor.device == theta.device for tensor in phi.values())
    return alike and goes_linear(optimizer, theta.device, theta.dtype)


def goes_linear(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the CPU kernel of lin takes the steps of a learned optimizer."""
    return chosen() in ("auto", "native") and linear.supports(optimizer, device, dtype) and not native_problem()


def goes_dense(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the CPU kernels of mlp take the steps of a learned optimizer."""
    return chosen() in ("auto", "native") and dense.supports(optimizer, device, dtype) and not native_problem()


def _goes_native(optimizer: LearnedOptimizer, phi: Phi, state: State, theta: torch.Tensor) -> bool:
    return _alike(optimizer, phi, state, theta) and goes_native(optimizer, theta.device, theta.dtype)


def _alike(optimizer: LearnedOptimizer, phi: Phi, state: State, theta: torch.Tensor) -> bool:
    """Whether a kernel may read all of it as theta's dtype: plain PyTorch says what is wrong with anything else."""
    network = optimizer.trusted_network
    tensors = (*phi.values(), *(state[name] for name in (network.units if network else ())))
    return all(tensor.dtype == theta.dtype and tensor.device == theta.device for tensor in tensors)


def goes_native(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the CPU kernels take the network's steps. Raises LregError where LREG_KERNELS asks for them in vain."""
    way, network = chosen(), optimizer.trusted_network
    if way not in ("auto", "native") or not supports(network, device, dtype):
        return False
    if (problem := native_problem()) and way == "native":
        raise LregError(f"LREG_KERNELS=native: {problem}")
    return not problem


@functools.cache
def native_problem() -> str:
    """Why there are no CPU kernels; empty if there are."""
    try:
        library()
    except BuildError as error:
        return str(error)
    return ""


def describe(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """What a log says of the way that is taken on a device for dm, rnnprop and simple. Compiles the kernels."""
    way = chosen()
    if way in ("rows", "recompute", "plain", "triton"):
        kernels = "triton (float32 alone)" if way == "triton" and dtype != torch.float32 else way
        return f"{kernels}, as LREG_KERNELS says"
    if device.type == "cuda":
        return "plain PyTorch" + (", or Triton where its trial says so" if dtype == torch.float32 else "")
    if device.type != "cpu":
        return "plain PyTorch"
    problem = native_problem()
    if problem:
        return f"plain PyTorch in rows, because of the native ones: {problem}"
    return f"native, {isa_of(library())}, {'prebuilt' if is_prebuilt(library()) else 'compiled on this machine'}"
