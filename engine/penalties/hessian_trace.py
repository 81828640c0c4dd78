"""The trace of the Hessian."""

from __future__ import annotations

from torch import Tensor

from engine.base.flat import Loss, curvature_along
from engine.penalties.base import PENALTIES, HessianPenalty, setting


@PENALTIES.register("hessian_trace")
class HessianTrace(HessianPenalty):
    """Trace of the loss's Hessian, by Hutchinson's estimator (Yang et al. 2023, arXiv:2302.11085).

    R(θ) = mean over v of vᵀ H(θ) v for vectors v of random signs: unbiased for any number of them, exact where H is
    diagonal, else of variance 2 Σ_{i≠j} H_ij² / samples. Its gradient is exact, through third derivatives of the loss.
    """

    samples: int = setting(1, minimum=1, maximum=1000, help="random vectors at each inner step")

    @property
    def vectors(self) -> int:
        return self.samples

    def along(self, loss: Loss, theta: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        return curvature_along(loss, theta, signs)
