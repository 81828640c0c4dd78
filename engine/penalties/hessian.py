"""Penalties on the Hessian: its trace, and its largest eigenvalue."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.base.flat import Loss, curvature_along, dot, hessian_at, unit
from engine.penalties.base import PENALTIES, HessianPenalty, setting

ROUNDING = 100.0  # a product that is less than so many roundings of its parts is none


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


@PENALTIES.register("top_eigenvalue")
class TopEigenvalue(HessianPenalty):
    """Largest eigenvalue of the loss's Hessian, by power iterations (Yang et al. 2023, arXiv:2302.11085).

    R(θ) = vᵀ H(θ) v with the unit vector v that the iterations end at, a constant for differentiation: at an
    eigenvector that is the eigenvalue's own gradient. Power iterations go to the eigenvalue that is largest in size;
    where that is negative after half of them, the others start anew on H shifted by it, and go to the largest.
    """

    iterations: int = setting(10, minimum=1, maximum=1000, help="power iterations, a Hessian-vector product each")

    @property
    def vectors(self) -> int:
        return 1

    def along(self, loss: Loss, theta: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        smallest = ROUNDING * torch.finfo(theta.dtype).eps
        vector, shift = unit(signs[0]), torch.zeros_like(theta[:1])
        times_hessian = hessian_at(loss, theta)
        for iteration in range(1, self.iterations + 1):
            product = times_hessian(vector).detach().nan_to_num(0.0, 0.0, 0.0)
            moved = product - shift * vector
            stands = moved.norm() <= smallest * product.norm()  # an eigenvector of the eigenvalue `shift`
            if iteration == self.iterations // 2:
                shift = dot(vector, product).clamp_max(0.0)
            vector = torch.where(stands, vector, unit(moved))
            if iteration == self.iterations // 2:
                vector = torch.where(shift < 0, unit(signs[0]), vector)
        return curvature_along(loss, theta, vector[None])
