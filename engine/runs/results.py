"""Results: means, confidence intervals, and the rows of a run's result table. Pure functions, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.runs.store import RunReader

if TYPE_CHECKING:
    from engine.presets.preset import Preset

FIGURES = ("train_loss", "test_loss", "test_accuracy")
CONFIDENCE = 0.95
LARGEST = 1e300  # beyond it sums overflow; nobody means such a figure
CHECKPOINT_ORDER = ("best", "last", "initial")


@dataclass(frozen=True)
class Mean:
    """A mean over n seeds and the half-width of its confidence interval (None for fewer than two seeds)."""

    mean: float | None
    ci95: float | None
    n: int


def mean(values: Iterable[float | None]) -> Mean:
    """Mean and t-interval of the values that are there and finite."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    n = len(there)
    if n == 0:
        return Mean(None, None, 0)
    average = math.fsum(there) / n
    if n == 1:
        return Mean(average, None, 1)
    variance = math.fsum((value - average) * (value - average) for value in there) / (n - 1)
    return Mean(average, t_quantile(n - 1) * math.sqrt(variance / n), n)


def by_horizon(reader: RunReader, metric: str) -> dict[float, float | None]:
    """A metric of the evaluations of meta-training, by how many inner steps they took (0 where that is not said).

    Of each length the newest value, or the least of all ("best_validation_loss"); None where the newest is not finite.
    """
    name = metric.removeprefix("best_")
    fresh = RunReader(reader.path)  # what it reads is let go again: a study has hundreds of runs
    found: dict[float, Any] = {}
    for record in fresh.records():
        if name in record:
            steps, value = _number(record.get("evaluated_steps")) or 0, _number(record[name])
            if name == metric:
                found[steps] = value
            elif value is not None:
                found[steps] = min(value, found.get(steps, value))
    return found


def common_horizon(runs: Iterable[Mapping[float, Any]]) -> float | None:
    """The greatest number of inner steps over which all runs were evaluated, as `by_horizon` has them; None if none.

    A curriculum evaluates over longer and longer unrolls, and how far a run gets is its own affair: what it reached on
    few steps says nothing beside what another reached on many.
    """
    reached = [set(run) for run in runs if run]
    return max(set.intersection(*reached), default=None) if reached else None


def at_horizon(run: Mapping[float, float | None], horizon: float | None) -> float | None:
    """A run's value at a common horizon; where there is none, at its own longest."""
    return run.get(max(run) if horizon is None else horizon) if run else None


def t_quantile(degrees_of_freedom: int) -> float:
    """The two-sided 95% quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE / 2))


def rows(evaluations: Iterable[Mapping[str, Any]], radius: float | None = None) -> list[dict[str, Any]]:
    """The result table: a row per evaluation and mark (inner step), learned optimizers first.

    `evaluations` have the form of transfer/<name>.json, and come from a folder that may hold anything: what does not
    fit is left out. Sharpness is given at `radius`, or at the middle one of those measured.
    """
    found = [row for evaluation in evaluations for row in _rows_of(evaluation, radius)]
    return sorted(
        found, key=lambda row: (row["inner_step"], row["learning_rate"] is not None, _rank(row), row["label"])
    )


def _rank(row: Mapping[str, Any]) -> int:
    checkpoint = row["checkpoint"]
    return CHECKPOINT_ORDER.index(checkpoint) if checkpoint in CHECKPOINT_ORDER else len(CHECKPOINT_ORDER)


def _rows_of(evaluation: Mapping[str, Any], radius: float | None) -> list[dict[str, Any]]:
    seeds = [seed for seed in _list(evaluation.get("seeds")) if isinstance(seed, dict)]
    marks = [mark for seed in seeds for mark in _list(seed.get("marks")) if isinstance(mark, dict)]
    steps = sorted({mark["inner_step"] for mark in marks if isinstance(mark.get("inner_step"), int)})
    label = str(evaluation.get("label") or evaluation.get("optimizer") or "?")
    shared = {
        "label": label,
        "optimizer": str(evaluation.get("optimizer") or label),
        "checkpoint": evaluation.get("checkpoint"),
        "learning_rate": _number(evaluation.get("learning_rate")),
        "task": evaluation.get("task"),
        "seeds": len(seeds),
        "diverged": sum(seed.get("diverged") is True for seed in seeds),
    }
    return [
        {**shared, **_figures([mark for mark in marks if mark.get("inner_step") == step], step, radius)}
        for step in steps
    ]


def _figures(marks: Sequence[Mapping[str, Any]], step: int, radius: float | None) -> dict[str, Any]:
    key = _radius_key(marks, radius)
    sharpness = [_number(_at(_table(mark.get("sharpness")), key)) for mark in marks]
    return {
        "inner_step": step,
        **{name: asdict(mean(_number(mark.get(name)) for mark in marks)) for name in FIGURES},
        "sharpness": {**asdict(mean(sharpness)), "radius": key},
    }


def _at(table: Mapping[str, Any], key: str | None) -> Any:
    """What a table has for a radius, in whatever form that was typed."""
    radius = _float(key or "")
    return next((table[other] for other in table if other == key or _float(other) == radius is not None), None)


def _radius_key(marks: Sequence[Mapping[str, Any]], radius: float | None) -> str | None:
    """The radius as it is written in the file: the wanted one, else the middle one."""
    keys = {key for mark in marks for key in _table(mark.get("sharpness")) if _float(key) is not None}
    ordered = sorted(keys, key=lambda key: (_float(key) or 0.0, key))
    wanted = [key for key in ordered if radius is not None and math.isclose(_float(key) or 0.0, radius)]
    chosen = wanted or ordered[len(ordered) // 2 :]
    return chosen[0] if chosen else None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < LARGEST else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def run_rows(reader: RunReader) -> list[dict[str, Any]]:
    """The rows of a run's own result table: its final comparison, as far as it is there."""
    evaluations = [found for name, found in reader.transfers().items() if name.startswith("result-")]
    try:
        radius = reader.preset()["evaluation"]["radius"]
    except LregError:
        radius = None
    return rows(evaluations, radius)


def preset_differences(preset: Preset) -> dict[str, Any]:
    """What a preset says that is not the default of its own dataset, optimizee, learned optimizer and penalties.

    Which of those it uses is always listed.
    """
    from engine.presets.preset import from_mapping

    chosen: dict[str, Any] = {
        "name": preset.name,
        "task": [{key: task[key] for key in ("dataset", "optimizee")} for task in preset.tasks],
        "optimizer": {"kind": preset["optimizer"]["kind"]},
        "penalty": {name: {} for name in preset["penalty"]},
    }
    usual = from_mapping(chosen).flat()
    always = re.compile(r"task\.(\d+\.)?(dataset|optimizee)|optimizer\.kind|penalty\.\w+\.weight|seed")
    flat = preset.flat()
    return {key: value for key, value in flat.items() if always.fullmatch(key) or usual.get(key) != value}
