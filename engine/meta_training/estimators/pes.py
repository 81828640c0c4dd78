"""Persistent evolution strategies: meta-steps within an unroll, without the bias of truncation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from engine.meta_training.estimators.base import ESTIMATORS
from engine.meta_training.estimators.es import ES
from engine.optimizers.learned.base import Phi


@ESTIMATORS.register("pes")
class PES(ES):
    """Persistent evolution strategies (Vicol, Metz & Sohl-Dickstein 2021, arXiv:2112.13835, eq. 8).

    A fresh εᵢ in every truncation, the particles carried on; g = 1/(2 N σ²) Σᵢ ξᵢ (Lᵢ⁺ − Lᵢ⁻), where ξᵢ adds up the
    perturbations of the unroll so far and L is what the truncation adds to the meta-objective.
    """

    whole_unrolls: ClassVar[bool] = False

    def _directions(self, phi: Phi, noise_seeds: Sequence[int]) -> Phi:
        total = self.noise(phi, noise_seeds[0])
        for seed in noise_seeds[1:]:
            noise = self.noise(phi, seed)
            total = {name: total[name] + noise[name] for name in total}
        return total
