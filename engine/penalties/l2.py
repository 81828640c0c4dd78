"""Weight decay on the meta-parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.optimizers.learned.base import Phi
from engine.penalties.base import PENALTIES, ParameterPenalty


@PENALTIES.register("l2")
class L2(ParameterPenalty):
    """R(φ) = ‖φ‖₂², over all meta-parameters. Weights of interest: 1e-5 to 1e-2."""

    def value(self, phi: Phi) -> Tensor:
        return torch.stack([(tensor**2).sum() for tensor in phi.values()]).sum()
