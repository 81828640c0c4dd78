"""Layer, batch and instance norms written out: torch's kernels have third derivatives that are wrong, or none."""

from __future__ import annotations

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
        return _WRITTEN_OUT.get(function, function)(*args, **(kwargs or {}))


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


def channel_norm(
    x: Tensor,
    over: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    counting: slice = slice(None),
) -> Tensor:
    """Batch or instance norm of x, [D, C, ...], by the mean and variance over some dimensions of x[counting]."""
    dims = tuple(over)
    centered = x - x[counting].mean(dims, keepdim=True)
    scale = (centered[counting].square().mean(dims, keepdim=True) + eps).rsqrt()
    channels = (-1, *[1] * (x.dim() - 2))
    x = centered * (scale if weight is None else scale * weight.view(channels))
    return x if bias is None else x + bias.view(channels)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return channel_norm(x, (0, *range(2, x.dim())), weight, bias, eps)
    channels = (-1, *[1] * (x.dim() - 2))
    scale = (running_var + eps).rsqrt() if weight is None else (running_var + eps).rsqrt() * weight
    x = (x - running_mean.view(channels)) * scale.view(channels)
    return x if bias is None else x + bias.view(channels)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return _batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    return channel_norm(x, range(2, x.dim()), weight, bias, eps)


_WRITTEN_OUT: dict[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
}
