"""Layer, batch and instance norms written out: torch's kernels have third derivatives that are wrong, or none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class WrittenOutNorms(TorchFunctionMode):
    """Context in which `torch.nn.functional` normalises by what is here."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is F.layer_norm:
            return layer_norm(*args, **(kwargs or {}))
        if function not in (F.batch_norm, F.instance_norm):
            return function(*args, **(kwargs or {}))
        given = inspect.signature(function).bind(*args, **(kwargs or {}))
        given.apply_defaults()
        x, mean, variance, weight, bias, by_itself, _, eps = given.arguments.values()  # of both in this order
        channels = (-1, *[1] * (x.dim() - 2))
        if not by_itself:
            return channel_norm(x - mean.view(channels), variance.view(channels), weight, bias, eps)
        over = tuple(dim for dim in range(x.dim()) if dim > 1 or (dim == 0 and function is F.batch_norm))
        centered = x - x.mean(over, keepdim=True)
        return channel_norm(centered, centered.square().mean(over, keepdim=True), weight, bias, eps)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm of x, [..., *normalized_shape]."""
    over = tuple(range(-len(normalized_shape), 0))
    centered = x - x.mean(over, keepdim=True)
    x = centered * (centered.square().mean(over, keepdim=True) + eps).rsqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def channel_norm(centered: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch or instance norm of x, [D, C, ...], less its mean, whose variance has as many dimensions."""
    channels = (-1, *[1] * (centered.dim() - 2))
    scale = (variance + eps).rsqrt()
    x = centered * (scale if weight is None else scale * weight.view(channels))
    return x if bias is None else x + bias.view(channels)
