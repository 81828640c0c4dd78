"""Penalties on the meta-parameters alone: their norm, and the orthogonality and spectral norm of weight matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.optimizers.learned.base import Phi
from engine.penalties.base import PENALTIES, ParameterPenalty, Reparametrization


@PENALTIES.register("l2")
class L2(ParameterPenalty):
    """R(φ) = ‖φ‖₂², over all meta-parameters. Weights of interest: 1e-5 to 1e-2."""

    def value(self, phi: Phi) -> Tensor:
        return torch.stack([(tensor**2).sum() for tensor in phi.values()]).sum()


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


@PENALTIES.register("spectral")
class Spectral(Reparametrization):
    """W ← W / σ(W)^weight for every weight matrix, σ its top singular value (Miyato et al. 2018, arXiv:1802.05957).

    One power iteration for each meta-step with vectors that persist; the vectors are constants for differentiation, σ
    is not. weight = 1 is the published normalisation, 0 none. It changes how large an update can be; heads and biases
    stay free. `start` and `relative` have no meaning here. The figure logged is the mean σ.
    """

    def init(self, phi: Phi) -> dict[str, Tensor]:
        memory = {}
        for name, matrix in as_matrices(phi).items():
            left, _, _ = torch.linalg.svd(matrix.detach(), full_matrices=False)
            memory[name] = left[:, 0].contiguous()  # exact at the start; power iteration only has to follow
        return memory

    def apply(self, phi: Phi, memory: dict[str, Tensor]) -> tuple[Phi, dict[str, Tensor], Tensor]:
        used, moved, norms = dict(phi), {}, []
        for name, matrix in as_matrices(phi).items():
            right = torch.nn.functional.normalize(matrix.detach().T @ memory[name], dim=0)
            moved[name] = torch.nn.functional.normalize(matrix.detach() @ right, dim=0)
            norm = moved[name] @ matrix @ right
            used[name] = matrix / norm**self.weight
            norms.append(norm.detach())
        return used, moved, torch.stack(norms).mean() if norms else zero_like_loss(phi)


def as_matrices(phi: Phi) -> dict[str, Tensor]:
    """The weight matrices between units: no biases, no one-column maps in or out."""
    matrices = {name: tensor for name, tensor in phi.items() if tensor.ndim == 2 and min(tensor.shape) > 1}
    return {name: tensor for name, tensor in matrices.items() if not name.endswith("bias")}


def zero_like_loss(phi: Phi) -> Tensor:
    first = next(iter(phi.values()))
    return torch.zeros((), dtype=first.dtype, device=first.device)
