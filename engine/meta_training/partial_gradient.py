"""PartialGradient: what some optimizees of a task contribute to a meta-gradient, in a form that adds up.

Where the optimizees of a task are shared out among processes, each has a partial gradient of its own. Only their sum is
the meta-gradient: shares and relative penalties compare what belongs to all optimizees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.base.metrics import metric, objective_term, penalty_share, penalty_value
from engine.meta_training.backward import pull_back
from engine.meta_training.objective import Objective
from engine.optimizers.learned.base import Phi, without_start

LOSS = "the loss"
GEOMETRIC = "the geometric penalties"  # all geometric penalties together
COUNTS = ("dropped_terms", "counted_terms")


@dataclass
class PartialGradient:
    """What `optimizees` optimizees contribute."""

    optimizees: int
    gradients: dict[str, Phi]  # by what they are of (LOSS, an update penalty, GEOMETRIC): means over the optimizees
    sums: dict[str, Tensor]  # [2] for each metric: what is divided by what; of a count the second number is nothing
    values: Tensor | None = None  # [M], of the meta-objective for each particle: sums over the optimizees

    def pack(self, objective: Objective, phi: Phi, particles: int = 0) -> Tensor:
        """All of it as float64 [n] on the CPU, weighted by the optimizees; n is the same for all of an objective."""
        size = sum(tensor.numel() for tensor in phi.values())
        flat = {
            name: torch.cat([part.flatten() for part in gradient.values()]) for name, gradient in self.gradients.items()
        }
        gradients = [_block(flat.get(name), size, self.optimizees) for name in _slots(objective)]
        metrics = [_block(self.sums.get(name), 2) for name in _metrics(objective)]
        return torch.cat([*gradients, *metrics, _block(self.values, particles)])

    @classmethod
    def unpack(
        cls, packed: Tensor, optimizees: int, objective: Objective, phi: Phi, particles: int = 0
    ) -> PartialGradient:
        """The other way round, from what all of `optimizees` optimizees add up to."""
        sizes = [tensor.numel() for tensor in phi.values()]
        slots, metrics = _slots(objective), _metrics(objective)
        *blocks, values = packed.split([1 + sum(sizes)] * len(slots) + [3] * len(metrics) + [1 + particles])
        sums = {name: block[1:] for name, block in zip(slots + metrics, blocks, strict=True) if block[0] > 0}
        gradients: dict[str, Phi] = {}
        for name in sums.keys() & set(slots):
            parts = zip(phi.items(), (sums[name] / optimizees).split(sizes), strict=True)
            gradients[name] = {key: part.view_as(tensor).to(tensor) for (key, tensor), part in parts}
        like = next(iter(phi.values()))
        sums = {name: sums[name].to(like) for name in metrics if name in sums}
        return cls(optimizees, gradients, sums, values[1:].to(like) if values[0] > 0 else None)

    def meta_gradient(self, objective: Objective, phi: Phi, inner_step: int) -> tuple[Phi, dict[str, Tensor]]:
        """The meta-gradient of the truncation that ended with an inner step, penalties on phi and all, and metrics."""
        metrics = {name: _added_up(name, pair) for name, pair in self.sums.items()}
        parameter = self._parameter_penalties(objective, phi, inner_step, metrics)
        plain = norm(self.gradients[LOSS])
        total = self.gradients[LOSS]
        named = {name: self.gradients[name] for name in objective.update if name in self.gradients}
        for name, gradient in {**named, **parameter}.items():
            metrics[penalty_share(name).name] = norm(gradient) / plain
            total = _sum(total, gradient)
        if GEOMETRIC in self.gradients:
            total = _sum(total, self.gradients[GEOMETRIC])
        return total, metrics

    def _parameter_penalties(
        self, objective: Objective, phi: Phi, inner_step: int, metrics: dict[str, Tensor]
    ) -> dict[str, Phi]:
        """The gradients of the penalties on phi that weigh something; their values go into the metrics."""
        gradients = {}
        for name, penalty in objective.parameter.items():
            value = penalty.value(without_start(phi))
            value = value / metrics["meta_loss"] if penalty.relative else value
            metrics[penalty_value(name).name] = value.detach()
            if penalty.weight and inner_step >= penalty.start:
                gradients[name] = pull_back(phi, [value], [torch.full_like(value, penalty.weight)])
        return gradients


def norm(phi: Phi) -> Tensor:
    """The norm of meta-parameters, or of their gradient, all together."""
    return torch.stack([tensor.norm() for tensor in phi.values()]).norm()


def _slots(objective: Objective) -> list[str]:
    return [LOSS, *(name for name, penalty in objective.update.items() if penalty.weight), GEOMETRIC]


def _metrics(objective: Objective) -> list[str]:
    values = [penalty_value(name).name for name in (*objective.geometric, *objective.update)]
    shares = [penalty_share(name).name for name in objective.geometric]
    terms = [objective_term(name).name for name in objective.terms]
    return ["meta_loss", "meta_objective", "update_norm", *COUNTS, *values, *shares, *terms]


def _block(values: Tensor | None, size: int, factor: int = 1) -> Tensor:
    """Whether there are values, and the values or zeros, [1 + size]: from a sum of zeros one could not tell."""
    if values is None:
        return torch.zeros(1 + size, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), factor * values.detach().cpu().double()])


def _added_up(name: str, sums: Tensor) -> Tensor:
    adds_up = metric(name).adds_up
    if adds_up == "sum":
        return sums[0]
    return (sums[0] / sums[1]).sqrt() if adds_up == "root_mean_square" else sums[0] / sums[1]


def _sum(one: Phi, other: Phi) -> Phi:
    return {name: one[name] + other[name] for name in one}


def together(groups: Sequence[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The metrics of groups, each with its share: counts add up, everything else is a mean over those that have it."""
    metrics = {}
    for name in dict.fromkeys(name for _, group in groups for name in group):
        values = torch.stack([group[name] for _, group in groups if name in group])
        if name in COUNTS:
            metrics[name] = values.sum()
        else:
            shares = values.new_tensor([share for share, group in groups if name in group])
            counts = values.isfinite() if name not in ("meta_loss", "update_norm") else torch.ones_like(values).bool()
            metrics[name] = torch.where(counts, shares * values, 0.0).sum() / (shares * counts).sum()
    return metrics


def mean_of(results: Sequence[tuple[Phi, dict[str, Tensor]]]) -> tuple[Phi, dict[str, Tensor]]:
    """The mean meta-gradient and metrics of the meta-epochs under way; what is counted adds up."""
    gradients, metrics = zip(*results, strict=True)
    if len(results) == 1:
        return gradients[0], metrics[0]
    mean = {name: torch.stack([gradient[name] for gradient in gradients]).mean(0) for name in gradients[0]}
    diverged = torch.stack([of_epoch["diverged"] for of_epoch in metrics]).sum()
    return mean, {**together([(1 / len(results), of_epoch) for of_epoch in metrics]), "diverged": diverged}
