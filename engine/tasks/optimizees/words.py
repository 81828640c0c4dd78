"""What networks for sentences share: token 0 is padding."""

from __future__ import annotations

from torch import Tensor

PADDING = 0


def is_word(x: Tensor) -> Tensor:
    """Where tokens, [D, L], are no padding."""
    return x != PADDING


def mean_over_words(states: Tensor, x: Tensor) -> Tensor:
    """The mean of states, [D, L, W], over the places where tokens, [D, L], are no padding: [D, W]; 0 where none are."""
    weight = is_word(x).to(states.dtype)
    return (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1.0)
