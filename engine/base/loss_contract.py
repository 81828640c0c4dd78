"""The contract of a loss that a user brings: theta, shape [P], to a real scalar, the same at every call, twice
differentiable by `torch.func`. Checked once for each public call, never within meta-training or a transfer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp, vmap

from engine.base.arguments import kind, refusal
from engine.base.errors import ArgumentError, printable, shortened
from engine.base.flat import Loss, grad_and_hvp, plain_attention

DTYPES = (torch.float32, torch.float64)
VALUE_DIFFERS, GRADIENT_DIFFERS = 1e-4, 1e-2  # relative: more than rounding that no two calls share, as on a GPU
LOOKS = 64  # at a loss that draws random numbers

Evaluation = tuple[Tensor, Tensor]
"""A loss, [], and its gradient, [P], at a point."""

_FUNCTIONAL = "make it with engine.flat_loss(model, lambda model: ...), or torch.func.functional_call"
_ADVICE = (
    (
        "mutate a captured Tensor",
        "it changes a tensor from outside in place, as BatchNorm in training mode does: call model.eval() first, or "
        "write it without in-place operations",
    ),
    ("leaf Variable that requires grad|view of a leaf Variable", "it changes theta in place: work on theta.clone()"),
    (
        "derivative for .* is not implemented|[Dd]ouble backwards? (is )?not|trying to differentiate twice",
        "one of its operations has no second derivative: use one that has, as the plain form of a fused kernel",
    ),
    ("setup_context", "its torch.autograd.Function needs setup_context, and its backward a derivative of its own"),
    ("support saved tensor hooks", "torch.func knows no saved-tensor hooks: leave out activation checkpointing"),
    (
        r"backward\(\) called inside|through the graph a second|requires_grad_\(\)|torch\.autograd\.functional",
        "it calls backward() or requires_grad_() itself: use torch.func.grad, or torch.autograd.grad with "
        "create_graph=True",
    ),
    (
        r"doesn't have storage|Can't call numpy\(\)|data pointer|invalid python storage",
        "it reads theta's numbers with numpy() or the like: keep to tensor operations",
    ),
    (
        "same dtype|same type|scalar type|should be the same|must have the type|Found dtype",
        "tensors of different dtypes meet in it: convert what it captures to theta's, as x.double() for float64",
    ),
    (r"escaped\?|INTERNAL ASSERT.*functorch|functorch.*INTERNAL ASSERT", f"it keeps theta in a module: {_FUNCTIONAL}"),
    ("functorch|torch[.]func", f"torch.func cannot differentiate it: {_FUNCTIONAL}"),
)


def is_transformed(theta: Any) -> bool:
    """Whether this is a call within the caller's own vmap or grad, where no value can be looked at."""
    return isinstance(theta, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(theta)


def check_theta(theta: Any) -> Tensor:
    """theta, [P] or [B, P], as a constant. Raises ArgumentError for anything else."""
    shape = "a tensor of shape [P], or [B, P] for B points"
    if not isinstance(theta, Tensor):
        raise refusal("theta", shape, kind(theta), "torch.nn.utils.parameters_to_vector flattens a model's parameters")
    if theta.dtype not in DTYPES:
        precision = str(theta.dtype).removeprefix("torch.")
        raise refusal("theta", "float32 or float64", precision, "pass theta.float() or theta.double()")
    if theta.dim() not in (1, 2):
        hint = "theta.reshape(1) for one parameter" if theta.dim() == 0 else "theta.flatten() for one point"
        raise refusal("theta", shape, f"shape {list(theta.shape)}", hint)
    if not theta.numel():
        raise refusal("theta", shape, f"shape {list(theta.shape)}", "it is empty")
    if theta.layout != torch.strided or theta.is_meta or theta.is_nested:
        raise refusal("theta", "a dense tensor with numbers in it", f"{theta.layout} on {theta.device}")
    with torch.inference_mode(False):
        return theta.clone() if theta.is_inference() else theta.detach()


def check_loss(loss: Any) -> Loss:
    if callable(loss):
        return loss
    raise refusal("loss", "a function from theta, shape [P], to a scalar tensor", kind(loss))


def first_finite(points: Tensor) -> int:
    """Which of the points, [B, P], to try a loss at."""
    return int(points.isfinite().all(-1).int().argmax())


def value_and_grad_once(loss: Loss, point: Tensor) -> Evaluation:
    """The loss, [], and its gradient, [P], at a point, [P], by plain autograd, the result looked at.

    Not by torch.func, where a loss that writes theta into a module would leave that unusable.
    """
    with torch.inference_mode(False), torch.enable_grad():
        theta = point.clone().requires_grad_()
        try:
            value = loss(theta)
            check_value(value)
            gradient = torch.autograd.grad(value, theta, allow_unused=True)[0] if value.requires_grad else None
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            gradient, value = grad_and_value(loss)(point)  # the loss's data was made in inference mode
    if gradient is None:
        raise ArgumentError(
            "loss must depend on theta through its graph, found one that is detached from theta: no torch.tensor(...), "
            f".item(), .detach() or no_grad on the way, and {_FUNCTIONAL}"
        )
    if not torch.equal(theta.detach(), point) and point.isfinite().all():
        raise ArgumentError("loss must not change theta in place: work on theta.clone()")
    return value.detach(), gradient.detach()


def random_state(point: Tensor) -> Tensor:
    """That of the generator from which a loss at this point draws unless it has one of its own."""
    return torch.cuda.get_rng_state(point.device) if point.is_cuda else torch.get_rng_state()


def check_repeats(loss: Loss, point: Tensor, one: Evaluation, other: Evaluation, state: Tensor) -> None:
    """Two evaluations at the same point, [P], agree but for rounding; `state` is the generator's between them.

    A loss that draws random numbers is looked at more often and at another point: a mask may come twice, and at 0 or
    at a minimum none is seen.
    """
    _check_alike(one, other)
    if not torch.equal(state, random_state(point)):
        moved = point + 0.01 * (1 + point.abs())
        one = value_and_grad_once(loss, moved)
        for _ in range(LOOKS):
            _check_alike(one, value_and_grad_once(loss, moved))


def _check_alike(one: Evaluation, other: Evaluation) -> None:
    if all(map(torch.equal, one, other)):
        return
    for name, relative, *parts in zip(("loss", "gradient"), (VALUE_DIFFERS, GRADIENT_DIFFERS), one, other, strict=True):
        first, second = (part.double().nan_to_num(0.0, 0.0, 0.0) for part in parts)
        rounding = 100 * torch.finfo(parts[0].dtype).eps
        alike = (first - second).norm() <= relative * torch.maximum(first.norm(), second.norm()) + rounding
        if not alike or not torch.equal(parts[0].isfinite(), parts[1].isfinite()):
            figures = f"{float(parts[0].norm()):.6g} and {float(parts[1].norm()):.6g}"
            raise ArgumentError(
                f"loss must be the same function at every call, found two calls at the same theta with a {name} of "
                f"{figures}: fix its batch outside of it, switch dropout off (model.eval()), seed what is random"
            )


def for_many(loss: Loss, points: Tensor) -> Loss:
    """The loss at points, [B, P], such that vmap refuses it where its second derivatives under vmap are wrong.

    As those of BatchNorm by the batch's own statistics, in silence. Compared at one of two points with that alone.
    """
    if len(points) == 1:
        return loss
    try:
        trusted = _vmap_agrees(loss, points[:2])
    except RuntimeError:  # either has none, or vmap refuses it
        trusted = False
    if trusted:
        return loss

    def call(theta: Tensor) -> Tensor:
        if _is_batched(theta):
            raise RuntimeError("vmap: the second derivatives of this loss would be wrong")
        return loss(theta)

    return call


def _vmap_agrees(loss: Loss, pair: Tensor) -> bool:
    vector = torch.arange(pair.shape[-1], dtype=pair.dtype, device=pair.device).cos()
    alone = grad_and_hvp(loss, pair[0], vector)[1]
    outside = vjp(vmap(grad(loss)), pair)[1](vector.expand_as(pair))[0]
    inside = vmap(lambda point: grad_and_hvp(loss, point, vector)[1])(pair)
    return agree(outside[0], alone) and agree(inside[0], alone)


def agree(batched: Tensor, alone: Tensor) -> bool:
    """Whether a vector that vmap found for one of many points is the one found for that point alone, [P] each.

    But for rounding, and relative to its size: a wrong share may be small, and so may the loss.
    """
    bound = torch.finfo(alone.dtype).eps ** 0.5 * alone.norm().nan_to_num(0.0)
    alike = bool((batched - alone).nan_to_num(0.0, 0.0, 0.0).norm() <= bound)
    return alike and torch.equal(batched.isfinite(), alone.isfinite())


def _is_batched(tensor: Tensor) -> bool:
    while is_transformed(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def with_graph(loss: Loss) -> Loss:
    """The loss, given a graph where it wants one even where nobody else does: one that takes gradients itself."""

    def call(theta: Tensor) -> Tensor:
        try:
            return loss(theta)
        except RuntimeError as error:
            if "does not require grad" not in str(error) or theta.requires_grad or is_transformed(theta):
                raise
        with torch.enable_grad():
            return loss(theta.clone().requires_grad_()).detach()

    return call


@contextmanager
def own_loss() -> Iterator[None]:
    """Around the work on a user's loss: attention by its differentiable form, what torch.func cannot do in one line.

    In inference mode torch.func of torch 2.6 gives gradients of zero. The loss's own exceptions pass as they are.
    """
    with torch.inference_mode(False), plain_attention():
        try:
            yield
        except RuntimeError as error:  # NotImplementedError is one
            for pattern, advice in _ADVICE:
                if type(error) in (RuntimeError, NotImplementedError) and re.search(pattern, str(error)):
                    message = printable(shortened(str(error).strip().splitlines()[0], 160))
                    raise ArgumentError(f"loss: {advice} (torch: {message})") from error
            raise


def check_value(value: Any) -> None:
    if not isinstance(value, Tensor):
        hints = {tuple: "return the loss alone", type(None): "is a return missing?"}
        raise _wrong_value(
            "a scalar tensor", kind(value), hints.get(type(value), "no float(...) or .item() on the way")
        )
    if value.shape != ():
        hint = "return loss.mean() or loss.sum()" if value.numel() > 1 else "return loss.squeeze()"
        raise _wrong_value("a scalar, shape []", f"shape {list(value.shape)}", hint)
    if value.dtype not in DTYPES:
        hint = "compute it outside of autocast, in theta's precision" if value.is_floating_point() else "a real number"
        raise _wrong_value("float32 or float64", str(value.dtype).removeprefix("torch."), hint)


def _wrong_value(allowed: str, found: str, hint: str) -> ArgumentError:
    return ArgumentError(f"loss must return {allowed}, found {found} ({hint})")
