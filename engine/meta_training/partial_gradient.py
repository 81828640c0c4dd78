"""PartialGradient: what some optimizees of a task contribute to a meta-gradient, in a form that adds up.

Where the optimizees of a task are shared out among processes, each has a partial gradient of its own. Only their sum is
the meta-gradient: shares and relative penalties compare what belongs to all optimizees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.meta_training.backward import pull_back
from engine.meta_training.objective import Objective
from engine.optimizers.learned.base import Phi

LOSS = "the loss"
GEOMETRIC = "the geometric penalties"  # all geometric penalties together
COUNTS = ("dropped_terms", "counted_terms")


@dataclass
class PartialGradient:
    """What `optimizees` optimizees contribute."""

    optimizees: int
    gradients: dict[str, Phi]  # by what they are of (LOSS, an update penalty, GEOMETRIC): means over the optimizees
    sums: dict[str, Tensor]  # [2] for each figure: what is divided by what; of a count the second number is nothing

    def pack(self, objective: Objective, phi: Phi) -> Tensor:
        """All of it as float64 [n] on the CPU, weighted by the optimizees; n is the same for all of an objective."""
        size = sum(tensor.numel() for tensor in phi.values())
        flat = {name: torch.cat([part.flatten() for part in own.values()]) for name, own in self.gradients.items()}
        gradients = [_block(flat.get(name), size, self.optimizees) for name in _slots(objective)]
        return torch.cat(gradients + [_block(self.sums.get(name), 2) for name in _figures(objective)])

    @classmethod
    def unpack(cls, packed: Tensor, optimizees: int, objective: Objective, phi: Phi) -> PartialGradient:
        """The other way round, from what all of `optimizees` optimizees add up to."""
        sizes = [tensor.numel() for tensor in phi.values()]
        slots, figures = _slots(objective), _figures(objective)
        blocks = packed.split([1 + sum(sizes)] * len(slots) + [3] * len(figures))
        found = {name: block[1:] for name, block in zip(slots + figures, blocks, strict=True) if block[0] > 0}
        gradients: dict[str, Phi] = {}
        for name in found.keys() & set(slots):
            parts = zip(phi.items(), (found[name] / optimizees).split(sizes), strict=True)
            gradients[name] = {key: part.view_as(tensor).to(tensor) for (key, tensor), part in parts}
        like = next(iter(phi.values()))
        return cls(optimizees, gradients, {name: found[name].to(like) for name in figures if name in found})

    def meta_gradient(self, objective: Objective, phi: Phi, inner_step: int) -> tuple[Phi, dict[str, Tensor]]:
        """The meta-gradient of the truncation that ended with an inner step, penalties on phi and all, and figures."""
        figures = {name: _figure(name, own) for name, own in self.sums.items()}
        parameter = self._parameter_penalties(objective, phi, inner_step, figures)
        plain = norm(self.gradients[LOSS])
        total = self.gradients[LOSS]
        named = {name: self.gradients[name] for name in objective.update if name in self.gradients}
        for name, gradient in {**named, **parameter}.items():
            figures[f"{name}_penalty_share"] = norm(gradient) / plain
            total = _sum(total, gradient)
        if GEOMETRIC in self.gradients:
            total = _sum(total, self.gradients[GEOMETRIC])
        return total, figures

    def _parameter_penalties(
        self, objective: Objective, phi: Phi, inner_step: int, figures: dict[str, Tensor]
    ) -> dict[str, Phi]:
        """The gradients of the penalties on phi that weigh something; their values go into the figures."""
        gradients = {}
        for name, penalty in objective.parameter.items():
            value = penalty.value(phi)
            value = value / figures["meta_loss"] if penalty.relative else value
            figures[f"{name}_penalty"] = value.detach()
            if penalty.weight and inner_step >= penalty.start:
                gradients[name] = pull_back(phi, [value], [torch.full_like(value, penalty.weight)])
        return gradients


def norm(phi: Phi) -> Tensor:
    """The norm of meta-parameters, or of their gradient, all together."""
    return torch.stack([tensor.norm() for tensor in phi.values()]).norm()


def _slots(objective: Objective) -> list[str]:
    return [LOSS, *(name for name, penalty in objective.update.items() if penalty.weight), GEOMETRIC]


def _figures(objective: Objective) -> list[str]:
    values = [f"{name}_penalty" for name in (*objective.geometric, *objective.update)]
    return ["meta_loss", "update_norm", *COUNTS, *values, *(f"{name}_penalty_share" for name in objective.geometric)]


def _block(values: Tensor | None, size: int, factor: int = 1) -> Tensor:
    """Whether there are values, and the values or zeros, [1 + size]: from a sum of zeros one could not tell."""
    if values is None:
        return torch.zeros(1 + size, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), factor * values.detach().cpu().double()])


def _figure(name: str, sums: Tensor) -> Tensor:
    if name in COUNTS:
        return sums[0]
    ratio = sums[0] / sums[1]
    return ratio.sqrt() if name.endswith("_penalty_share") else ratio


def _sum(one: Phi, other: Phi) -> Phi:
    return {name: one[name] + other[name] for name in one}
