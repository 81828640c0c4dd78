"""Probes: measurements of the loss landscape that never enter training.

Each takes a loss, a callable from theta, shape [P], to a scalar, and theta of shape [P], or [B, P] for B optimizees
that are measured side by side and get what each would get alone. They work in theta's dtype and best in float64 on a
fixed full batch: at a small radius the gap is a millionth of the loss. Every search keeps the best value that it ever
visited, the centre included, so a gap is never negative and never below the one-step gap. What is not finite at theta
is NaN.

The loss is the same function at every call (one fixed batch, no dropout) and differentiable by `torch.func`; attention
takes its math backend meanwhile. Every argument, theta and this contract are checked once for each call, with two more
evaluations; what does not fit is an ArgumentError, a ValueError, of one line. The loss's own exceptions pass unchanged.

Norm l2 or linf is that of the ball; the gradient norm is always the L2 norm. `tick` is called between computations and
may raise to interrupt.
"""

from __future__ import annotations

from engine.probes.figures import (
    adaptive_sharpness,
    max_grad_norm,
    max_loss,
    r1,
    sharpness,
    surrogate_gap,
    top_eigenpair,
    top_eigenvalue,
    trace,
)
from engine.probes.summary import Profile, profile

__all__ = [
    "Profile",
    "adaptive_sharpness",
    "max_grad_norm",
    "max_loss",
    "profile",
    "r1",
    "sharpness",
    "surrogate_gap",
    "top_eigenpair",
    "top_eigenvalue",
    "trace",
]
