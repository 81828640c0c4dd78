"""One transfer evaluation, read with care: the file may hold anything, and what does not fit is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from engine.base.settings import show
from engine.base.status import is_number
from engine.runs.results import CHECKPOINT_ORDER, LARGEST

PLAIN = (
    "train_loss",
    "validation_loss",
    "test_loss",
    "test_accuracy",
    "parameter_norm",
    "grad_norm",
    "top_eigenvalue",
    "trace",
)
BY_RADIUS = ("sharpness", "max_grad_norm", "surrogate_gap", "r1", "sharpness_linf", "max_grad_norm_linf")
NORMALISED = "normalised_sharpness"  # 2 * sharpness / radius^2
USUAL_BATCH = 128
WHOLE = 2**53  # counts and seeds below it are exact
PROTOCOL = ("examples", "restarts", "ascent_steps")
UPDATE_RULE = ("std", "max", "lipschitz")


class Figure(NamedTuple):
    """A figure that is measured, and the radius it is measured at, as typed: ("sharpness", "0.05")."""

    name: str
    radius: str | None = None


@dataclass(frozen=True)
class Outcome:
    """Where one optimizee is at one inner step: its finite figures, and whether it diverged in the end."""

    diverged: bool
    figures: Mapping[Figure, float]


Marks = dict[int, dict[int, Outcome]]  # by inner step and optimizee seed


@dataclass(frozen=True)
class Facts:
    """What an evaluation says of itself beside its outcomes."""

    optimizer: str
    label: str
    checkpoint: str
    scale: float
    task: str
    is_baseline: bool
    is_untrained: bool
    created: str
    passes_per_step: int
    learning_rate: float | None = None
    rho: float | None = None
    alpha: float | None = None
    tuned_at: int | None = None  # the inner step for which a baseline's settings were chosen, where it is said
    protocol: tuple[Any, ...] = ()  # examples, restarts, ascent steps of the probes
    digest: str = ""  # of the meta-parameters; empty where it is not said
    update_rule: tuple[float | None, ...] = ()  # standard deviation, maximum and Lipschitz ratio around the zero state

    def is_comparable(self, other: Facts) -> bool:
        """Whether two evaluations are of one optimizer with one setting, and were probed alike."""
        is_known = self.is_baseline or bool(self.digest)
        mine, its = (
            (facts.digest, facts.learning_rate, facts.rho, facts.alpha, facts.protocol) for facts in (self, other)
        )
        return is_known and mine == its


def read_evaluation(found: Mapping[str, Any], copies: dict[tuple[Facts, int], Marks]) -> Iterator[tuple[Facts, Marks]]:
    """What an evaluation says and what it found, unless it is damaged. Baselines are copied into every run's folder:
    `copies` has those that were read before.
    """
    facts, seeds = _facts(found), found.get("seeds")
    if facts is None or not isinstance(seeds, list):
        return
    marks = copies.get((facts, len(seeds))) or _marks(seeds)
    if facts.is_baseline:
        copies[facts, len(seeds)] = marks
    if marks:
        yield facts, marks


def _facts(found: Mapping[str, Any]) -> Facts | None:
    """What an evaluation says of itself; None where it does not say what it is."""
    task = _task_name(found.get("task"))
    scale = _number(found.get("scale", 1.0))
    if task is None or scale is None:
        return None
    optimizer = _text(found.get("optimizer")) or _text(found.get("label")) or "?"
    label, checkpoint = _text(found.get("label")) or optimizer, _text(found.get("checkpoint"))
    is_baseline = found.get("run") is None
    protocol, rule = found.get("protocol"), found.get("update_rule")
    return Facts(
        optimizer=optimizer,
        label=label,
        checkpoint=checkpoint,
        scale=float(f"{scale:.12g}"),
        task=task,
        is_baseline=is_baseline,
        is_untrained=not is_baseline and ("(untrained)" in label or checkpoint not in CHECKPOINT_ORDER),
        created=_text(found.get("created")),
        passes_per_step=_whole(found.get("passes_per_step")) or 1,
        learning_rate=_number(found.get("learning_rate")),
        rho=_number(found.get("rho")),
        alpha=_number(found.get("alpha")),
        tuned_at=_whole(found.get("tuned_at")),
        protocol=tuple(_number(protocol.get(key)) for key in PROTOCOL) if isinstance(protocol, Mapping) else (),
        digest=_text(found.get("digest")),
        update_rule=tuple(_number(rule.get(name)) for name in UPDATE_RULE) if isinstance(rule, Mapping) else (),
    )


def _task_name(task: Any) -> str | None:
    """ "fmnist/cnn", and what is unusual about it: "mnist/mlp batch_size=64"."""
    if not isinstance(task, Mapping):
        return None
    dataset, optimizee = _text(task.get("dataset")), _text(task.get("optimizee"))
    if not dataset or not optimizee:
        return None
    usual = {"dataset": dataset, "optimizee": optimizee, "batch_size": USUAL_BATCH}
    unusual = [f"{key}={show(value)}" for key, value in sorted(task.items()) if usual.get(key) != value]
    return " ".join([f"{dataset}/{optimizee}", *unusual])


def _marks(seeds: list[Any]) -> Marks:
    """Outcomes by inner step and optimizee seed. A seed without a mark that others have counts, without figures."""
    marks: dict[int, dict[int, Mapping[str, Any]]] = {}
    diverged: dict[int, bool] = {}
    for seed in seeds:
        if not isinstance(seed, Mapping) or (number := _whole(seed.get("seed"))) is None:
            continue
        diverged[number] = seed.get("diverged") is True
        for mark in seed["marks"] if isinstance(seed.get("marks"), list) else []:
            if isinstance(mark, Mapping) and (step := _whole(mark.get("inner_step"))) is not None:
                marks.setdefault(step, {})[number] = mark
    return {
        step: {number: Outcome(diverged[number], _figures(there.get(number, {}))) for number in diverged}
        for step, there in sorted(marks.items())
    }


def _figures(mark: Mapping[str, Any]) -> dict[Figure, float]:
    figures = {Figure(name): value for name in PLAIN if (value := _number(mark.get(name))) is not None}
    for name in BY_RADIUS:
        table = mark.get(name)
        for key, item in table.items() if isinstance(table, Mapping) else ():
            figure, value = _at_radius(name, key), _number(item)
            if figure is not None and figure.radius is not None and value is not None:
                figures[figure] = value
                normalised = 2 * value / float(figure.radius) ** 2
                if name == "sharpness" and math.isfinite(normalised):
                    figures[Figure(NORMALISED, figure.radius)] = normalised
    return figures


@lru_cache(maxsize=1000)
def _at_radius(name: str, key: str) -> Figure | None:
    """A figure at a radius in one spelling, as transfer files have it: "0.10" is "0.1"."""
    try:
        radius = float(key)
    except ValueError:
        return None
    return Figure(name, f"{radius:.12g}") if math.isfinite(radius) and 1e-12 < radius < 1e12 else None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and is_number(value) and abs(value) < LARGEST else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < WHOLE else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
