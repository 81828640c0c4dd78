"""The factor of each parameter's updates, as the learned optimizer's `step_scale` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.export.torch_optim.gradients import Share, on_host
from engine.export.torch_optim.layout import is_distributed, precision
from engine.optimizers.learned import step_scale
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


def _rms(share: Share) -> Tensor:
    if not is_distributed(share.parameter):
        return step_scale.rms(share.row.flat.to(share.dtype))
    whole: Any = share.parameter.detach().abs().to(precision(share.parameter))
    mean: Tensor = (whole**2).mean().full_tensor() / (2 if share.parameter.is_complex() else 1)
    return mean.sqrt().clamp_min(step_scale.RMS_FLOOR).to(torch.float64)
