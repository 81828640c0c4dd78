"""Rows of embeddings that nothing looked up in a step: an update that is multiplied by 0 leaves them alone.

A learned optimizer's update is not zero where the gradient is (biases, moments): a row of an embedding, whose token was
in no example, would drift, step after step, without any sign of where to. So such rows rest, as torch.optim.SparseAdam
leaves them; unlike there, the optimizer's state goes on as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from engine.tasks.base import Layout


def moving(grad: Tensor, layout: Layout) -> Tensor | None:
    """0 on the rows of embeddings where the gradient, [..., P], is zero, else 1: [..., P]; None without embeddings."""
    if not layout.embeddings:
        return None
    parts = zip(layout.shapes.items(), grad.detach().split(layout.sizes, -1), strict=True)
    return torch.cat(
        [
            rows_with_gradient(part.unflatten(-1, shape)).flatten(-2).to(grad.dtype)
            if name in layout.embeddings
            else torch.ones_like(part)
            for (name, shape), part in parts
        ],
        -1,
    )


def rows_with_gradient(grad: Tensor) -> Tensor:
    """Whether a row of an embedding's gradient, [..., V, W], is not all zero, for each of its coordinates."""
    return (grad != 0).any(-1, keepdim=True).expand_as(grad)
