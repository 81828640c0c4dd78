"""Adaptive sharpness: the rise of the loss within a ball that is as wide along a coordinate as this is large."""

from __future__ import annotations

from torch import Tensor

from engine.terms.base import TERMS
from engine.terms.sharpness import Sharpness


@TERMS.register("adaptive_sharpness")
class AdaptiveSharpness(Sharpness):
    """The largest L(θ + ε) − L(θ), ‖ε / |θ|‖₂ ≤ ρ (Kwon et al. 2021, arXiv:2102.11600, eq. 5): a rescaling of weights
    that leaves the network the same function leaves it the same."""

    def scale(self, theta: Tensor) -> Tensor:
        return theta.abs()
