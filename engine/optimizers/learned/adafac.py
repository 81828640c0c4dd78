"""adafac: a small network for each coordinate on Adam's and Adafactor's quantities, and on the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, Phi, Scope, State, StepInfo
from engine.optimizers.learned.features import bounded
from engine.optimizers.learned.tensor_mlp import TensorMLP
from engine.tasks.base import Layout

DECAYS = {"momenta": (0.9, 0.99, 0.999), "square": (0.999,), "factored": (0.9, 0.99, 0.999)}  # of the fresh optimizer
STEEPNESS = 10.0  # of 1 - decay in its meta-parameter
TINY = 1e-30  # beside the squared gradient in the factored means


@LEARNED_OPTIMIZERS.register("adafac")
class Adafac(TensorMLP):
    """MLP on Adafactor's quantities (Metz et al. 2022, arXiv:2203.11860; learned_optimization's adafac_mlp_lopt).

    Features, normalised over the tensor as `mlp`'s: g, θ, m (3), v, m/√(v + 1e-6) (3), 1/√(v + 1e-6), g r c (3), row
    (3), col (3), 1/√(row + 1e-8) (3), 1/√(col + 1e-8) (3), m r c (3); then the 11 of the time. m and v, of g²,
    are exponential means, and so are row and col, of the means of g² + 1e-30 over the largest and the second largest
    dimension (of equal ones the last is the largest); r = max(row / (mean of row + 1e-9), 1e-9)^-½ and
    c = max(col, 1e-9)^-½. Of a vector row and col are V, a mean of g² + 1e-30, and for r c stands max(V + 1e-9,
    1e-9)^-½ beside g, (V + 1e-6)^-½ beside m.

    The decays b are meta-learned: 1 - b = (1 - b₀) exp(10 δ), δ = 0 at first, b in [0, 1]. `step` leaves them in the
    state for the next `observe`, which has no meta-parameters: the first step goes by b₀, and the meta-gradient by δ
    flows within a truncation. Network 39-4-4-2 (PyLO has 39-32-32-2).
    """

    scope: ClassVar[Scope] = "tensor"

    hidden: int = setting(4, minimum=1, maximum=1024, help="hidden units for each coordinate, in each of two layers")

    def init_phi(self, generator: Generator) -> Phi:
        deltas = {f"decays.{name}": torch.zeros(len(decays)) for name, decays in DECAYS.items()}
        return self.mlp_phi(27, generator) | deltas

    def init(self, theta: Tensor) -> State:
        three = theta.new_zeros(*theta.shape, 3)
        means = {"momenta": three, "square": torch.zeros_like(theta), "row": three, "col": three}
        rates = {
            f"rate.{name}{index}": theta.new_full((), 1 - decay)
            for name, decays in DECAYS.items()
            for index, decay in enumerate(decays)
        }
        return means | rates | {"time": theta.new_zeros(())} | self.extra_state(theta)

    def observe(
        self,
        theta: Tensor,
        grad: Tensor,
        state: State,
        layout: Layout | None = None,
        info: StepInfo | None = None,
    ) -> tuple[Tensor, State]:
        grad = bounded(grad)
        g = grad[..., None]
        m = _mean(state["momenta"], g, _rates(state, "momenta"))
        v = _mean(state["square"][..., None], g**2, _rates(state, "square"))
        shapes = [tuple(theta.shape[-1:])] if layout is None else list(layout.shapes.values())
        row, col, of_g, of_m = _factored(grad, state, shapes)
        root = (v + 1e-6).rsqrt()
        parts = [g, theta[..., None]] if self.theta_input else [g]
        parts += [m, v, m * root, root, g * of_g, row, col, (row + 1e-8).rsqrt(), (col + 1e-8).rsqrt(), m * of_m]
        state = state | {"momenta": m, "square": v[..., 0], "row": row, "col": col}
        return self.shown(parts, theta, grad, state, layout, info)

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        update, state = super().step(phi, features, state)
        rates: State = {}
        for name, decays in DECAYS.items():
            delta = phi[f"decays.{name}"]
            fresh = torch.tensor([1 - decay for decay in decays], dtype=delta.dtype, device=delta.device)
            learned = (fresh * (STEEPNESS * delta).exp()).clamp(0.0, 1.0)
            rates |= {f"rate.{name}{index}": rate for index, rate in enumerate(learned.unbind())}
        return update, state | rates


def _rates(state: State, name: str) -> Tensor:
    """1 - b of the means of a name, [K]."""
    return torch.stack([state[f"rate.{name}{index}"] for index in range(len(DECAYS[name]))], -1)


def _mean(mean: Tensor, value: Tensor, rates: Tensor) -> Tensor:
    return (1 - rates) * mean + rates * value


def _factored(grad: Tensor, state: State, shapes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """row, col, and what g and m are multiplied by, [..., P, 3] each.

    Kept for every coordinate, though of a matrix they are the same along a dimension: so state is as any other.
    """
    sizes = [math.prod(shape) for shape in shapes]
    rates = _rates(state, "factored")
    tensors = zip(grad.split(sizes, -1), state["row"].split(sizes, -2), state["col"].split(sizes, -2), strict=True)
    pieces: list[tuple[Tensor, ...]] = []
    for shape, (g, row, col) in zip(shapes, tensors, strict=True):
        square = (g**2 + TINY)[..., None]  # [..., n, 1]
        if len(shape) < 2:
            value = _mean(row, square, rates)
            pieces.append((value, value, (value + 1e-9).clamp_min(1e-9).rsqrt(), (value + 1e-6).rsqrt()))
            continue
        order = sorted(range(len(shape)), key=lambda dim: shape[dim])
        largest, second = (dim - len(shape) - 1 for dim in (order[-1], order[-2]))  # the means' own dimension is last
        whole = (*g.shape[:-1], *shape)
        square = square.reshape(*whole, 1)
        row = _mean(row.reshape(*whole, 3), square.mean(largest, keepdim=True), rates)
        col = _mean(col.reshape(*whole, 3), square.mean(second, keepdim=True), rates)
        row_factor = (row / (row.mean(second, keepdim=True) + 1e-9)).clamp_min(1e-9).rsqrt()
        factor = row_factor * col.clamp_min(1e-9).rsqrt()
        pieces.append(tuple(part.reshape(*g.shape, 3) for part in (row, col, factor, factor)))
    return tuple(torch.cat(parts, -2) for parts in zip(*pieces, strict=True))
