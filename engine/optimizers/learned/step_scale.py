"""Steps that know the size of a tensor: what a learned optimizer's updates are multiplied by, tensor by tensor.

An update whose entries have about one size, as Adam's and a learned optimizer's have, changes what a unit sums over its
inputs by that size times the fan-in. So an optimizer that was meta-trained at one fan-in steps too far at a larger one.

**mup**: base_width / fan-in for matrices and convolutions, 1 for vectors (biases, gains) and embeddings, which sum over
nothing. This is muP for Adam (Yang et al. 2022, arXiv:2203.03466, table 3; for learned optimizers Thérien et al. 2024,
arXiv:2406.00153) with one difference: there only the width grows, so the first matrix, whose fan-in is that of the
data, keeps its step. Here data differ from task to task, and the same argument holds for their dimension: the change of
a unit's sum does not depend on the fan-in exactly if steps go as 1 / fan-in (the spectral condition, Yang et al. 2023,
arXiv:2310.17813: it needs no roles of layers). Measured: the best constant of an optimizer meta-trained at fan-in 49
falls to about 0.1 at 784, and is about 1 again where the first matrix's update is multiplied by 49/784.

**mup_capped**: the same, and never more than 1 (ours): below base_width the factor would grow without bound, to
base_width itself for a single input, and a first convolution of one channel (fan-in 9) would take the longest steps.

**rms**: the root mean square of the tensor itself, not below 1e-3, a constant for differentiation: an update is
relative to what it changes (Adafactor's relative step size, Shazeer & Stern 2018, arXiv:1804.04235, algorithm 4).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from engine.tasks.base import Layout

CHOICES = ("none", "mup", "mup_capped", "rms")
BY_FAN_IN = ("mup", "mup_capped")
RMS_FLOOR = 1e-3  # Adafactor's epsilon_2


def mup_factors(layout: Layout, base_width: int, *, capped: bool = False) -> tuple[float, ...]:
    """A factor for each tensor of a layout."""
    fan_ins = map(layout.fan_in, layout.shapes)
    factors = (1.0 if fan_in is None else base_width / max(1, fan_in) for fan_in in fan_ins)
    return tuple(min(1.0, factor) if capped else factor for factor in factors)


def factor(kind: str, base_width: int, theta: Tensor, layout: Layout) -> Tensor:
    """What updates are multiplied by at theta, [..., P]: [P] by fan-in, [..., P] for rms."""
    if kind in BY_FAN_IN:
        factors = mup_factors(layout, base_width, capped=kind == "mup_capped")
        return _spread(factors, layout.sizes, theta.device, theta.dtype)
    parts = theta.detach().split(layout.sizes, -1)
    return torch.cat([rms(part)[..., None].expand_as(part) for part in parts], -1)


def rms(tensor: Tensor) -> Tensor:
    """The root mean square over the last dimension, [..., n] to [...], not below the floor."""
    if not tensor.shape[-1]:
        return tensor.new_ones(tensor.shape[:-1])
    return (tensor**2).mean(-1).sqrt().clamp_min(RMS_FLOOR)


@functools.lru_cache(32)
def _spread(values: tuple[float, ...], sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A number for every coordinate of its tensor, [P]. Kept: it is asked for at every inner step."""
    with torch.inference_mode(False):
        counts = torch.tensor(sizes, device=device)
        return torch.tensor(values, device=device, dtype=dtype).repeat_interleave(counts, output_size=sum(sizes))
