"""Evolution strategies: the meta-gradient from values of the meta-objective at perturbed meta-parameters alone.

On whole unrolls (`es`), or within one, without the bias of truncation (`pes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from engine.base.flat import Batch
from engine.base.settings import setting
from engine.meta_training import particles
from engine.meta_training.estimators.base import ESTIMATORS, GradientEstimator
from engine.meta_training.inner_steps import Inputs
from engine.meta_training.objective import Objective
from engine.meta_training.partial_gradient import LOSS, PartialGradient
from engine.meta_training.particles import Particles
from engine.optimizers.learned.base import Phi


@ESTIMATORS.register("es")
class ES(GradientEstimator):
    """Antithetic evolution strategies on whole unrolls (Salimans et al. 2017, arXiv:1703.03864; for learned optimizers
    Metz et al. 2019, arXiv:1810.10180).

    g = 1/(2 N σ²) Σᵢ εᵢ (J(φ + εᵢ) − J(φ − εᵢ)), εᵢ ~ N(0, σ² I): unbiased for J smoothed by that noise. Both of a pair
    train the same optimizees on the same batches. J may be any number of the unroll; memory does not grow with it.
    """

    whole_unrolls: ClassVar[bool] = True
    takes_terms: ClassVar[bool] = True

    pairs: int = setting(8, minimum=1, maximum=1_000_000, help="pairs of perturbed meta-parameters, N")
    sigma: float = setting(0.1, above=0.0, maximum=1e3, help="standard deviation of the perturbations")
    fitness: str = setting(
        "ranks",
        choices=("ranks", "raw", "sign"),
        help="what a pair counts: the difference of its ranks among all, of its values, or the sign of that",
    )

    @property
    def particles(self) -> int:
        return 2 * self.pairs

    def begin(
        self, objective: Objective, theta: Tensor, batch: Batch | None, *, scaling: Tensor | None, horizon: int | None
    ) -> Particles:
        return particles.begin(objective, self.particles, theta, batch, scaling=scaling, horizon=horizon)

    def estimate(
        self, objective: Objective, phi: Phi, carry: Particles, inputs: Inputs
    ) -> tuple[PartialGradient, Particles]:
        noise = self.noise(phi, inputs.noise_seeds[-1])
        perturbed = {name: torch.cat([phi[name] + e, phi[name] - e]).detach() for name, e in noise.items()}
        return particles.run_truncation(objective, perturbed, carry, inputs)

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Particles:
        return Particles.restored(tensors, facts)

    def combine(
        self, parts: Sequence[tuple[Objective, PartialGradient]], phi: Phi, inner_step: int, noise_seeds: Sequence[int]
    ) -> tuple[Phi, dict[str, Tensor]]:
        """The values of all optimizees decide what each pair counts, so the gradient is made of them together."""
        of_groups = [part.values for _, part in parts if part.values is not None]
        values = torch.stack(of_groups).sum(0) / sum(part.optimizees for _, part in parts)
        counts = self._pairs_count(values)
        directions = self._directions(phi, noise_seeds)
        gradient = {name: torch.einsum("n,n...->...", counts.to(e), e) for name, e in directions.items()}
        parts = [
            (objective, PartialGradient(part.optimizees, {LOSS: gradient}, part.sums)) for objective, part in parts
        ]
        return super().combine(parts, phi, inner_step, noise_seeds)

    def _pairs_count(self, values: Tensor) -> Tensor:
        """What the directions are weighted by, [N], from the values of all particles, [2 N]."""
        if self.fitness == "raw":
            plus, minus = values.chunk(2)
            return (plus - minus) / (2 * self.pairs * self.sigma**2)
        if self.fitness == "ranks":
            values = _centred_ranks(values)
        plus, minus = values.chunk(2)
        difference = (plus - minus).sign() if self.fitness == "sign" else plus - minus
        return difference / (self.pairs * self.sigma)

    def _directions(self, phi: Phi, noise_seeds: Sequence[int]) -> Phi:
        """What the values are differences along, [N, ...] each."""
        return self.noise(phi, noise_seeds[-1])

    def noise(self, phi: Phi, seed: int) -> Phi:
        """N(0, σ²) for each pair, [N, ...]: for one seed the same numbers on every device, in every process."""
        generator = Generator().manual_seed(seed)
        return {
            name: (self.sigma * torch.randn(self.pairs, *tensor.shape, generator=generator)).to(tensor)
            for name, tensor in phi.items()
        }


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


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks from -1/2 to 1/2; equal values share the mean of theirs."""
    below = (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2
    return below.to(values) / max(1, len(values) - 1) - 0.5
