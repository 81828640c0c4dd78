"""Results: means, confidence intervals, and the rows of a run's result table. Pure functions, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError
from engine.base.metrics import AT_RADIUS, Metric, from_json, result_metrics
from engine.base.status import is_number
from engine.runs.evaluations import (
    CHECKPOINT_ORDER,
    SHARPNESS,
    MetricAt,
    mark_names,
    middle,
    radii,
    read_facts,
    read_marks,
)
from engine.runs.store import RunReader

if TYPE_CHECKING:
    from engine.presets.preset import Preset

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over n seeds and the half-width of its confidence interval (None for fewer than two seeds)."""

    mean: float | None
    ci95: float | None
    n: int


def mean(values: Iterable[float | None]) -> Mean:
    """Mean and t-interval of the values that are there and finite."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    n = len(finite)
    if n == 0:
        return Mean(None, None, 0)
    average = math.fsum(finite) / n
    if n == 1:
        return Mean(average, None, 1)
    variance = math.fsum((value - average) * (value - average) for value in finite) / (n - 1)
    return Mean(average, t_quantile(n - 1) * math.sqrt(variance / n), n)


def t_quantile(degrees_of_freedom: int) -> float:
    """The two-sided 95% quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE / 2))


def by_horizon(reader: RunReader, metric: str) -> dict[float, float | None]:
    """A metric of the evaluations of meta-training, by how many inner steps they took (0 where that is not said).

    Of each length the newest value, or the least of all ("best_validation_loss"); None where the newest is not finite.
    """
    name = metric.removeprefix("best_")
    fresh = RunReader(reader.path)  # what it reads is let go again: a study has hundreds of runs
    values: dict[float, Any] = {}
    for record in fresh.records():
        if name in record:
            steps, value = (record[key] if is_number(record.get(key)) else None for key in ("evaluated_steps", name))
            if name == metric:
                values[steps or 0] = value
            elif value is not None:
                values[steps or 0] = min(value, values.get(steps or 0, value))
    return values


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


def rows(evaluations: Iterable[Mapping[str, Any]], radius: float | None = None) -> list[dict[str, Any]]:
    """The result table: a row per evaluation and mark (inner step), learned optimizers first.

    `evaluations` have the form of transfer/<name>.json, and come from a folder that may hold anything: what does not
    fit is left out. A row has the means of `columns`; sharpness at `radius`, or at the middle one of those measured,
    adaptive sharpness at its own;
    and under "metrics" what the file says of its task's own metrics, where it does.
    """
    table = [row for evaluation in evaluations for row in _rows_of(evaluation, radius)]
    return sorted(
        table, key=lambda row: (row["inner_step"], row["learning_rate"] is not None, _rank(row), row["label"])
    )


def columns(table: Iterable[Mapping[str, Any]]) -> tuple[Metric, ...]:
    """The metrics of these rows, each under its name; a row that lacks one has none of it."""
    names = dict.fromkeys(name for row in table for name in row)
    declared = {name: metric for row in table for name, metric in from_json(row.get("metrics")).items()}
    return result_metrics(names, declared)


def _rank(row: Mapping[str, Any]) -> int:
    checkpoint = row["checkpoint"]
    return CHECKPOINT_ORDER.index(checkpoint) if checkpoint in CHECKPOINT_ORDER else len(CHECKPOINT_ORDER)


def _rows_of(evaluation: Mapping[str, Any], radius: float | None) -> list[dict[str, Any]]:
    facts = read_facts(evaluation)
    if facts is None:
        return []
    shared = {
        "label": facts.label,
        "optimizer": facts.optimizer,
        "checkpoint": facts.checkpoint or None,
        "learning_rate": facts.learning_rate,
        "task": evaluation.get("task"),
    }
    own = {"metrics": {name: metric.to_json() for name, metric in facts.measured.items()}} if facts.measured else {}
    metrics = result_metrics(mark_names(evaluation), facts.measured)
    table = []
    for step, seeds in read_marks(evaluation).items():
        measured = [outcome.metrics for outcome in seeds.values()]
        means: dict[str, dict[str, Any]] = {}
        for metric in metrics:
            at_radii = radii((at for metrics in measured for at in metrics), metric.name)
            near = [text for text in at_radii if radius is not None and math.isclose(float(text), radius)]
            at = middle(near if near and metric.name == SHARPNESS else at_radii)
            average = asdict(mean(metrics.get(MetricAt(metric.name, at)) for metrics in measured))
            means[metric.name] = {**average, "radius": at} if metric.name in AT_RADIUS else average
        table.append(
            {
                **shared,
                "seeds": len(seeds),
                "diverged": sum(outcome.diverged for outcome in seeds.values()),
                "inner_step": step,
                **means,
                **own,
            }
        )
    return table


def run_rows(reader: RunReader) -> list[dict[str, Any]]:
    """The rows of a run's own result table: its final comparison, as far as it is there."""
    evaluations = [values for name, values in reader.transfers().items() if name.startswith("result-")]
    try:
        radius = reader.preset()["evaluation"]["radius"]
    except LregError:
        radius = None
    return rows(evaluations, radius)


def preset_differences(preset: Preset) -> dict[str, Any]:
    """What a preset says that is not the default of its own dataset, optimizee, learned optimizer, estimator, penalties
    and terms.

    Which of those it uses is always listed.
    """
    from engine.presets.catalog import member_name, named_members, named_table
    from engine.presets.preset import from_mapping
    from engine.presets.tables import ObjectiveSettings

    chosen: dict[str, Any] = {
        "name": preset.name,
        "task": [{key: task[key] for key in ("dataset", "optimizee")} for task in preset.tasks],
        "optimizer": {"kind": preset["optimizer"]["kind"]},
        "meta": {"estimator": preset["meta"]["estimator"]},
    }
    for path in named_members(preset.values):
        table = chosen
        for key in (*named_table(path).split("."), member_name(path)):
            table = table.setdefault(key, {})
    chosen.setdefault("objective", {})["loss"] = preset["objective"]["loss"]  # which decides what other keys there are
    usual = {**from_mapping(chosen).flat(), "objective.loss": ObjectiveSettings().loss}
    always = re.compile(
        r"task\.(\d+\.)?(dataset|optimizee)|optimizer\.kind|meta\.estimator|(penalty|objective\.terms)\.[\w-]+\.weight|seed"
    )
    flat = preset.flat()
    return {key: value for key, value in flat.items() if always.fullmatch(key) or usual.get(key) != value}
