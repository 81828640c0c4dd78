"""Flat-vector mathematics on the loss as a function of theta, shape [P]: perturbations, Hessian-vector products, balls.

Everything here composes with `torch.func.vmap`, so one optimizee is written and many are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[[Tensor], Tensor]
"""theta, shape [P], to a scalar."""

Batch = Any
"""A tensor, or tuples and dicts of tensors: one optimizee's examples; with a leading [B] those of B optimizees."""

BatchLoss = Callable[[Tensor, Batch], Tensor]
"""theta, shape [P], and one optimizee's batch to a scalar."""

TINY = 1e-12
"""Guards a norm that is divided by, so that a zero vector stays zero instead of becoming NaN."""


def perturbation(direction: Tensor, radius: float | Tensor) -> Tensor:
    """The vector of length `radius`, a number or [..., 1], along `direction`, [..., P]; zero where that is zero."""
    return radius * direction / direction.norm(dim=-1, keepdim=True).clamp_min(TINY)


def project(vector: Tensor, radius: float, norm: str = "l2") -> Tensor:
    """The point of the ball of `radius` about 0 that is nearest to `vector`, shape [..., P]; norm l2 or linf."""
    if norm == "linf":
        return vector.clamp(-radius, radius)
    length = vector.norm(dim=-1, keepdim=True).clamp_min(TINY)
    return vector * (radius / length).clamp_max(1.0)


def grad_and_hvp(loss: Loss, theta: Tensor, vector: Callable[[Tensor], Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """Gradient g and H v at theta, shape [P] each, where v is `vector` or, if callable, `vector(g)` held constant.

    Reverse over reverse: two passes, one graph, exact wherever the loss is twice differentiable.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
        gradient, pull_back = vjp(grad(loss), theta)[:2]
        constant = vector(gradient.detach()) if callable(vector) else vector
        return gradient, pull_back(constant)[0]


def curvature_along(loss: Loss, theta: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of v'Hv over vectors, [K, P], shape [], and its gradient by theta, [P], the vectors held constant.

    Reverse mode three times over: the loss needs a third derivative. Where that or the Hessian does not exist, 0.
    """

    def mean_curvature(point: Tensor) -> Tensor:
        pull_back = vjp(grad(loss), point)[1]
        return torch.stack([(pull_back(vector)[0] * vector).sum() for vector in vectors]).mean()

    with sdpa_kernel(SDPBackend.MATH):
        slope, value = grad_and_value(mean_curvature)(theta)
    return value.nan_to_num(0.0, 0.0, 0.0), slope.nan_to_num(0.0, 0.0, 0.0)


def random_signs(count: int, theta: Tensor, seed: int) -> Tensor:
    """Vectors of -1 and 1, [count, P] for theta [..., P], that follow from the seed alone, on every device and in vmap.

    A hash of coordinate and seed (the finaliser of MurmurHash3, twice): a generator could not be used inside vmap.
    """
    size = theta.shape[-1]
    numbers = torch.arange(count * size, device=theta.device)
    numbers = _mixed((_mixed(numbers) + 0x9E3779B1 * (seed + 1)) & 0xFFFFFFFF)
    return (1 - 2 * (numbers & 1)).to(theta.dtype).view(count, size)


def _mixed(numbers: Tensor) -> Tensor:
    """32 bits to 32 bits, int64; what overflows is beyond the mask."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & 0xFFFFFFFF
    return numbers ^ (numbers >> 16)


def unit(vector: Tensor) -> Tensor:
    """vector / its norm, shape [..., P]; zero where the vector is zero."""
    return perturbation(vector, 1.0)


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product over the last dimension, kept: shape [..., 1]."""
    return (left * right).sum(-1, keepdim=True)


def orthogonal_part(vector: Tensor, axis: Tensor) -> Tensor:
    """The part of `vector` orthogonal to `axis`, shape [..., P]; all of it where the axis is zero."""
    return vector - dot(vector, axis) / dot(axis, axis).clamp_min(TINY**2) * axis


def all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether every number in every tensor is finite: a boolean scalar on the device."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all()


def side_by_side(function: Callable[..., Any]) -> Callable[..., Any]:
    """vmap over the optimizees; a single one is computed without vmap, whose overhead would double a small step."""
    many = vmap(function)

    def call(theta: Tensor, *rest: Any) -> Any:
        if theta.shape[0] != 1:
            return many(theta, *rest)
        result = function(theta[0], *(tree_map(lambda part: part[0], item) for item in rest))
        return tree_map(lambda tensor: tensor[None], result)

    return call


def as_far_as_possible(function: Callable[..., Any]) -> Callable[[Tensor], Any]:
    """`side_by_side` for any function of theta, [B, P] in the result: one by one where vmap cannot.

    As where a loss decides by its values (`if`, min(), float()) or draws random numbers. vmap is asked once.
    """
    many: Callable[..., Any] | None = vmap(function)

    def call(theta: Tensor) -> Any:
        nonlocal many
        if many is not None and len(theta) > 1:
            try:
                return many(theta)
            except RuntimeError:  # if it is none of vmap's, it comes again
                many = None
        parts = [function(point) for point in theta]
        if isinstance(parts[0], Tensor):
            return torch.stack(parts)
        return tuple(torch.stack(part) for part in zip(*parts, strict=True))

    return call


def tree_map(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    """Apply a function to a tensor, or to the tensors of tuples (named or not), lists and dicts; of several alike."""
    if isinstance(value, Tensor):
        return function(value, *others)
    if isinstance(value, dict):
        return {key: tree_map(function, part, *(other[key] for other in others)) for key, part in value.items()}
    parts = [tree_map(function, *alike) for alike in zip(value, *others, strict=True)]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a batch, one after another."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def gradients_and_losses(loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients, [B, P], and losses, [B], as constants: every inner step's work, so by the shortest way.

    The same as `vmap(grad_and_value(loss))(theta, batch)` at a third of its overhead; not for use inside torch.func.
    """
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        losses = side_by_side(loss)(theta, batch)
        (gradients,) = torch.autograd.grad(losses.sum(), theta)
    return gradients, losses.detach()


def hessian_vector_products(loss: BatchLoss, theta: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
    """H v of each optimizee, [B, P], for theta and vectors of that shape on batches with a leading [B]: constants."""
    theta = theta.detach().requires_grad_()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
        losses = side_by_side(loss)(theta, batch)
        (gradients,) = torch.autograd.grad(losses.sum(), theta, create_graph=True)
        (products,) = torch.autograd.grad(gradients, theta, vectors, materialize_grads=True)
    return products


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with "prefix/" before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with "prefix/", without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
