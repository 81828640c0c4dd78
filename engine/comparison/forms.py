"""A comparison as data for other programs: one JSON object, or one tidy table of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from engine.base.metrics import penalty_share
from engine.comparison.report import Comparison, ComparisonRow, ComparisonTable
from engine.comparison.statistics import Interval

NUMBERS = ("mean", "low", "high", "n")
TIDY_COLUMNS = ("section", "task", "inner_step", "arm", "figure", "radius", *NUMBERS)
ROW = ("label", "kind", "arm", "inner_step", "passes", "meta_seeds", "seeds", "diverged")
FACTS = ("optimizer", "scale", "weight_decay", "sam", "learning_rate", "rho", "alpha")  # of a row
PAIRED = ("task", "inner_step", "arm", "reference", "setting", "radius", "kind")
JUDGED = ("outside", "left_out", "verdict", "meta_seeds_match")
RUN_END = ("step", "validation_loss", "best_validation_loss", "diverged", "best_scale")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """One object with the keys

    - `reference`: label of the reference arm; `radii`, `radius`: those measured, and the one shown;
    - `arms`: label, runs (ids), meta_seeds, has_penalty, control (null, or label, of, without: the arm here that is
      this one without these penalties and terms), problem (why its preset cannot be read, or null);
    - `settings`: equal and default (how many keys), differing: {key: {arm: value}};
    - `runs`: run, name, arm, meta_seed, state, step, total, validation_loss, best_validation_loss, diverged,
      penalty_shares: {name: share}, best_scale, problem;
    - `best_scales`: {task: scales}, the reference arm's of the lowest train loss, for each of its meta-seeds;
    - `tables`: task, inner_step, rows: label, kind, arm, optimizer, checkpoint, scale, weight_decay, sam,
      learning_rate, rho, alpha, inner_step, passes, meta_seeds, seeds, diverged, figures: {name: interval}, or
      {name: {radius: interval}}, where an interval is {mean, low, high, n, over}, update_rule: {std, max,
      lipschitz} around the zero state, and best: names (and radii) in which the row is the best;
    - `paired`: task, inner_step, arm, reference, setting ("equal steps", "matched loss", "frontier", "regular
      frontier", "envelope", "scale x weight decay"), figure, radius, kind ("difference": arm - reference, "ratio":
      arm / reference), mean, low, high, n (pairs), meta_seeds, over, p (of a two-sided t-test), outside, left_out,
      verdict, meta_seeds_match;
    - `notes`, `damaged_files`.
    """
    settings, labels = comparison.settings, [arm.label for arm in comparison.arms]
    return {
        "reference": comparison.reference.label,
        "radii": list(comparison.radii),
        "radius": comparison.radius,
        "arms": [
            {
                "label": arm.label,
                "runs": [run.reader.id for run in arm.runs],
                "meta_seeds": [run.meta_seed for run in arm.runs],
                "has_penalty": arm.has_penalty,
                "control": asdict(comparison.controls[arm.label]) if arm.label in comparison.controls else None,
                "problem": arm.runs[0].problem or None,
            }
            for arm in comparison.arms
        ],
        "settings": {
            "equal": settings.equal,
            "default": settings.default,
            "differing": {key: dict(zip(labels, values, strict=True)) for key, values in settings.differing.items()},
        },
        "runs": [{**asdict(run), "problem": run.problem or None} for run in comparison.runs],
        "tables": [
            {"task": table.task, "inner_step": table.inner_step, "rows": list(map(_row, table.rows, _best(table)))}
            for table in comparison.tables
        ],
        "paired": [
            _picked(effect, (*PAIRED, *JUDGED)) | {"figure": effect.metric.name} | asdict(effect.interval)
            for effect in comparison.effects
        ],
        "best_scales": {task: list(scales) for task, scales in comparison.best_scales.items()},
        "notes": list(comparison.notes),
        "damaged_files": comparison.damaged_files,
    }


def tidy(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    """Rows of TIDY_COLUMNS. Sections: run (arm is the run's id), table, and a paired one for each setting.

    None where a cell has nothing to say.
    """
    for run in comparison.runs:
        values = _picked(run, RUN_END) | {penalty_share(name).name: share for name, share in run.penalty_shares.items()}
        for name, value in values.items():
            if value is not None:
                yield ("run", None, None, run.run, name, None, value, None, None, 1)
    for table in comparison.tables:
        for row in table.rows:
            where = ("table", table.task, row.inner_step, row.label)
            for name in ("passes", "seeds", "diverged"):
                yield (*where, name, None, getattr(row, name), None, None, row.seeds)
            for at, interval in row.metrics.items():
                yield (*where, *at, *itemgetter(*NUMBERS)(_interval(interval)))
    for effect in comparison.effects:
        where = (f"paired {effect.kind}, {effect.setting}", effect.task, effect.inner_step, effect.arm)
        yield (*where, *effect.at, *itemgetter(*NUMBERS)(asdict(effect.interval)))


def _row(row: ComparisonRow, best: list[list[str]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for at, interval in row.metrics.items():
        if at.radius is None:
            figures[at.name] = _interval(interval)
        else:
            figures.setdefault(at.name, {})[at.radius] = _interval(interval)
    facts = _picked(row.facts, FACTS) | {"checkpoint": row.facts.checkpoint or None}
    return {**_picked(row, ROW), **facts, "figures": figures, "update_rule": dict(row.update_rule), "best": best}


def _best(table: ComparisonTable) -> list[list[list[str]]]:
    """For each row the metrics in which it is the best: [name], or [name, radius]."""
    best: list[list[list[str]]] = [[] for _ in table.rows]
    for at in dict.fromkeys(at for row in table.rows for at in row.metrics):
        for index in table.best(at):
            best[index].append([part for part in at if part is not None])
    return best


def _interval(interval: Interval) -> dict[str, Any]:
    return {**_picked(interval, NUMBERS), "n": interval.units, "over": interval.over}


def _picked(item: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in names}
