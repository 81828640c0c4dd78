"""What each parameter's updates are multiplied by, as the learned optimizer's `step_scale` and `sparse_rows` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.export.torch_optim.gradients import Share, on_host
from engine.export.torch_optim.layout import is_distributed, precision
from engine.optimizers.learned import sparse_rows, step_scale
from engine.optimizers.learned.base import LearnedOptimizer
from engine.tasks.base import Layout


def scale_steps(optimizer: LearnedOptimizer, shares: Sequence[Share]) -> None:
    """Multiply the shares' factors by those of their tensors, each of the whole parameter, whatever part is here."""
    if optimizer.step_scale in step_scale.BY_FAN_IN:
        layout = Layout({share.label: share.parameter.shape for share in shares})
        factors: Sequence[float] = step_scale.mup_factors(
            layout, optimizer.base_width, capped=optimizer.step_scale == "mup_capped"
        )
    elif optimizer.step_scale == "rms":
        factors = on_host([_rms(share) for share in shares])
    else:
        return
    for share, factor in zip(shares, factors, strict=True):
        share.factor *= factor


def rest_rows(shares: Sequence[Share]) -> None:
    """Note of embeddings, known by their names, which rows got a gradient: the others are not moved."""
    embeddings = Layout({share.label: share.row.shape for share in shares}).embeddings
    for share in shares:
        if share.label in embeddings:
            grad = share.grad.as_strided(share.row.shape, share.row.strides)
            share.moving = share.row.in_order(sparse_rows.rows_with_gradient(grad))


def _rms(share: Share) -> Tensor:
    if not is_distributed(share.parameter):
        return step_scale.rms(share.row.flat.to(share.dtype))
    whole: Any = share.parameter.detach().abs().to(precision(share.parameter))
    mean: Tensor = (whole**2).mean().full_tensor() / (2 if share.parameter.is_complex() else 1)
    return mean.sqrt().clamp_min(step_scale.RMS_FLOOR).to(torch.float64)
