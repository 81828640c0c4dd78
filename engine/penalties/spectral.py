"""Spectral normalisation of the learned optimizer's weight matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.optimizers.learned.base import Phi
from engine.penalties.base import PENALTIES, Reparametrization, as_matrices, zero_like_loss


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
