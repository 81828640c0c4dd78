"""Flat-vector mathematics on the loss as a function of theta, shape [P]: perturbations, Hessian-vector products, balls.

Everything here composes with `torch.func.vmap`, so one optimizee is written and many are computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from engine.base.norms import WrittenOutNorms
from engine.base.replay import replayed

Loss = Callable[[Tensor], Tensor]
"""theta, shape [P], to a scalar."""

plain_attention = functools.partial(sdpa_kernel, SDPBackend.MATH)
"""Context around all work on losses: torch's other kernels of attention have no second derivative and no vmap."""

Batch = Any
"""A tensor, or tuples and dicts of tensors: one optimizee's examples; with a leading [B] those of B optimizees."""

BatchLoss = Callable[[Tensor, Batch], Tensor]
"""theta, shape [P], and one optimizee's batch to a scalar."""
GRAPHS_AT_ONCE = {"cpu": 2**25}
"""Bytes of the graphs of Hessian-vector products that probes take side by side on a kind of device, where these are
known; `MOST_GRAPHS` on any other. On a CPU more would be fresh pages at every product: the C library keeps no array of
32 MiB and more for the next one."""
MOST_GRAPHS = 2**31

LARGE_INPUTS = 2**16
"""Numbers in one optimizee's inputs from which on a CPU's grouped convolutions take longer than one after another."""


class PartedLoss:
    """A weighted sum of losses, theta [P] to a scalar, each of which is differentiated by itself.

    So memory is that of the largest part, with `grad`, `grad_and_value` and the like of this module; not with those of
    torch.func, which take the sum as it is. They give the same.
    """

    def __init__(self, parts: Sequence[tuple[float, Loss]], points: int | None = None) -> None:
        """`points`: at how many points a Hessian-vector product should be taken side by side; None: nobody knows."""
        self.parts, self.points = parts, points

    def __call__(self, theta: Tensor) -> Tensor:
        return functools.reduce(torch.add, (weight * part(theta) for weight, part in self.parts))


class MicroBatches:
    """A loss on batches that is the mean over micro-batches of at most `size` examples, weighted by their numbers.

    For a loss that is a mean over examples it is the same function. Every tensor of a batch has the examples first.
    """

    def __init__(self, loss: BatchLoss, size: int) -> None:
        self.loss, self.size = loss, size

    def __call__(self, theta: Tensor, batch: Batch) -> Tensor:
        return self.on(batch)(theta)

    def on(self, batch: Batch) -> PartedLoss:
        """The loss on one optimizee's batch."""
        return PartedLoss(
            [(weight, functools.partial(_on_batch, self.loss, part)) for weight, part in self.split(batch)]
        )

    def split(self, batch: Batch, dim: int = 0) -> list[tuple[float, Batch]]:
        """The micro-batches of a batch whose examples lie along a dimension, and what each of them counts."""
        examples = next(tensors_in(batch)).shape[dim]
        firsts = range(0, examples, self.size)
        return [
            (
                (min(first + self.size, examples) - first) / examples,
                tree_map(
                    lambda tensor, first=first: tensor.narrow(dim, first, min(self.size, examples - first)), batch
                ),
            )
            for first in firsts
        ]


def loss_on(loss: BatchLoss, batch: Batch) -> Loss:
    """A loss on one optimizee's batch, theta [P] to a scalar; in parts where it is a mean over micro-batches."""
    return loss.on(batch) if isinstance(loss, MicroBatches) else functools.partial(_on_batch, loss, batch)


def _on_batch(loss: BatchLoss, batch: Batch, theta: Tensor) -> Tensor:
    return loss(theta, batch)


def summed(parts: Sequence[tuple[float, Any]], function: Callable[[Any], Any]) -> Any:
    """The weighted sum over parts of what `function` gives for each: a tensor, or a tuple of them."""
    total: Any = None
    for weight, part in parts:
        result = tree_map(lambda tensor, weight=weight: weight * tensor, function(part))
        total = result if total is None else tree_map(torch.add, total, result)
    return total


def grad_and_value(loss: Loss) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """As `torch.func.grad_and_value`: a function of theta, [P], to the gradient, [P], and the loss, []."""
    if isinstance(loss, PartedLoss):
        return lambda theta: summed(loss.parts, lambda part: torch.func.grad_and_value(part)(theta))
    return torch.func.grad_and_value(loss)


def grad(loss: Loss) -> Callable[[Tensor], Tensor]:
    """As `torch.func.grad`: a function of theta, [P], to the gradient, [P]."""
    if isinstance(loss, PartedLoss):
        return lambda theta: summed(loss.parts, lambda part: torch.func.grad(part)(theta))
    return torch.func.grad(loss)


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
    if isinstance(loss, PartedLoss):
        constant = vector(grad(loss)(theta).detach()) if callable(vector) else vector
        return summed(loss.parts, lambda part: grad_and_hvp(part, theta, constant))
    gradient, pull_back = vjp(grad(loss), theta)[:2]
    constant = vector(gradient.detach()) if callable(vector) else vector
    return gradient, pull_back(constant)[0]


def hessian_at(loss: Loss, theta: Tensor) -> Callable[[Tensor], Tensor]:
    """v to H v at theta, [P] each: the graph of the gradient is kept, but of a loss in parts, where it is made anew."""
    if isinstance(loss, PartedLoss):
        return lambda vector: grad_and_hvp(loss, theta, vector)[1]
    pull_back = vjp(grad(loss), theta)[1]
    return lambda vector: pull_back(vector)[0]


def curvature_along(loss: Loss, theta: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of v'Hv over vectors, [K, P], shape [], and its gradient by theta, [P], the vectors held constant.

    Reverse mode three times over: the loss needs a third derivative. Where that or the Hessian does not exist, 0.
    """
    if isinstance(loss, PartedLoss):
        return summed(loss.parts, lambda part: curvature_along(part, theta, vectors))

    def mean_curvature(point: Tensor) -> Tensor:
        pull_back = vjp(grad(loss), point)[1]
        return torch.stack([(pull_back(vector)[0] * vector).sum() for vector in vectors]).mean()

    with WrittenOutNorms():
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


def as_far_as_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """vmap over leading dimensions of tensors in any structure (`tree_map`); one by one where vmap cannot.

    As where a function decides by values (`if`, min(), float()) or draws random numbers. vmap is asked once.
    """
    many: Callable[..., Any] | None = vmap(function)

    def call(*inputs: Any) -> Any:
        nonlocal many
        rows = len(next(tensors_in(inputs)))
        if many is not None and rows > 1:
            try:
                return many(*inputs)
            except RuntimeError:  # if it is none of vmap's, it comes again
                many = None
        each = [function(*row_of(inputs, row)) for row in range(rows)]
        return tree_map(lambda *parts: torch.stack(parts), *each)

    return call


def row_of(value: Any, row: int) -> Any:
    """What belongs to one of those along the leading dimensions of tensors in any structure."""
    return tree_map(lambda tensor: tensor[row], value)


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
    For theta of shape [M, B, P], of M particles on the same batches: [M, B, P] and [M, B].
    """
    if isinstance(loss, MicroBatches):
        return summed(loss.split(batch, 1), lambda part: gradients_and_losses(loss.loss, theta, part))
    work = functools.partial(_gradients_and_losses, loss)
    owner = getattr(loss, "__self__", None)
    convolves = (
        theta.dim() == 2 and len(theta) > 1 and theta.device.type == "cpu" and getattr(owner, "convolves", False)
    )
    if convolves and next(tensors_in(batch))[0].numel() >= LARGE_INPUTS:
        each = (tree_map(lambda part, row=row: part.narrow(0, row, 1), (theta, batch)) for row in range(len(theta)))
        gradients, losses = zip(*(work(*args) for args in each), strict=True)
        return torch.cat(gradients), torch.cat(losses)
    return replayed(owner, "gradients and losses", work, theta, batch)


def _gradients_and_losses(loss: BatchLoss, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        losses = (side_by_side(loss) if theta.dim() == 2 else of_particles(loss))(theta, batch)
        (gradients,) = torch.autograd.grad(losses.sum(), theta)
    return gradients.contiguous(), losses.detach()  # sums over them, too, are those of a run that is gone on with


def of_particles(loss: BatchLoss) -> Callable[[Tensor, Batch], Tensor]:
    """The losses, [M, B], of M particles of B optimizees each, theta [M, B, P], on batches with a leading [B]."""
    many = vmap(vmap(loss), (0, None))

    def call(theta: Tensor, batch: Batch) -> Tensor:
        with _LinearOnce():
            return many(theta, batch)

    return call


class _LinearOnce(TorchFunctionMode):
    """Has linear layers that get the same inputs computed as a wider one: vmap would copy the inputs for each."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is linear and not kwargs and args[0].dim() == args[1].dim() == 2:
            return _Linear.apply(*args[:2], args[2] if len(args) == 3 else None)
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """Stacks of linear layers: inputs [..., D, I], weights [..., O, I] and biases [..., O] or None to [..., D, O]."""

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        outputs = inputs @ weight.mT
        return outputs if bias is None else outputs + bias[..., None, :]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        (inputs, weight), (of_inputs, _, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            gradient @ weight if of_inputs else None,
            gradient.mT @ inputs,
            gradient.sum(-2) if of_bias else None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        of_inputs, of_weight, of_bias = in_dims
        inputs = inputs if of_inputs is None else inputs.movedim(of_inputs, 0)
        weight = weight if of_weight is None else weight.movedim(of_weight, 0)
        bias = bias if bias is None or of_bias is None else bias.movedim(of_bias, 0)
        if of_inputs is None and of_weight is not None and (bias is None or of_bias is not None):
            sizes = len(weight), weight.shape[-2]
            bias = None if bias is None else bias.movedim(0, -2).flatten(-2)
            outputs = _Linear.apply(inputs, weight.movedim(0, -3).flatten(-3, -2), bias).unflatten(-1, sizes)
            return outputs, outputs.dim() - 2
        if None in (of_inputs, of_weight) or (bias is not None and of_bias is None):
            return _Linear.forward(inputs, weight, bias), 0  # by broadcasting
        return _Linear.apply(inputs, weight, bias), 0


def hessian_vector_products(loss: BatchLoss, theta: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
    """H v of each optimizee, [B, P], for theta and vectors of that shape on batches with a leading [B]: constants."""
    if isinstance(loss, MicroBatches):
        return summed(loss.split(batch, 1), lambda part: hessian_vector_products(loss.loss, theta, part, vectors))
    return gradients_and_curvature(loss, theta, batch)[2](vectors)


def gradients_and_curvature(
    loss: BatchLoss, theta: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """As `gradients_and_losses`, and what takes vectors to their H v, [B, P] each: it keeps the gradients' graph."""
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        losses = side_by_side(loss)(theta, batch)
        (gradients,) = torch.autograd.grad(losses.sum(), theta, create_graph=True)

    def products(vectors: Tensor) -> Tensor:
        (curved,) = torch.autograd.grad(gradients, theta, vectors, retain_graph=True, materialize_grads=True)
        return curved

    return gradients.detach(), losses.detach(), products


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with "prefix/" before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with "prefix/", without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
