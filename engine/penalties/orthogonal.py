"""Orthogonality of the learned optimizer's weight matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.optimizers.learned.base import Phi
from engine.penalties.base import PENALTIES, ParameterPenalty, as_matrices, zero_like_loss


@PENALTIES.register("orthogonal")
class Orthogonal(ParameterPenalty):
    """R(φ) = Σ ‖WᵀW − I‖_F² over the weight matrices between units, gate by gate; one-column maps are left out.

    A matrix that is wider than tall is transposed first, so that I can be reached. Weights of interest: 1e-4 to 1.
    Xiong & Hsieh saw their optimizer fall to chance with it (table 1): a collapse is not necessarily a bug.
    """

    def value(self, phi: Phi) -> Tensor:
        terms = [_deviation(square) for matrix in as_matrices(phi).values() for square in _gates(matrix)]
        return torch.stack(terms).sum() if terms else zero_like_loss(phi)


def _gates(matrix: Tensor) -> tuple[Tensor, ...]:
    """The gates of an LSTM stand side by side, [H, 4H]: each is a map of its own."""
    rows, columns = matrix.shape
    return matrix.split(columns // 4, dim=1) if columns == 4 * rows else (matrix,)


def _deviation(matrix: Tensor) -> Tensor:
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    identity = torch.eye(tall.shape[1], dtype=tall.dtype, device=tall.device)
    return ((tall.T @ tall - identity) ** 2).sum()
