"""A comparison as data for other programs: one JSON object, or one tidy table of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from engine.comparison.evaluations import Figure
from engine.comparison.report import Comparison, RunFigures
from engine.comparison.statistics import Cell
from engine.comparison.tables import Row, Table

TIDY_COLUMNS = ("section", "task", "inner_step", "arm", "figure", "radius", "mean", "low", "high", "n")
RUN_FIGURES = ("validation_loss", "best_validation_loss", "diverged", "best_scale")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """One object with the keys

    - `reference`: label of the reference arm; `radii`, `radius`: those measured, and the one shown;
    - `arms`: label, runs (ids), meta_seeds, has_penalty, problem (why its preset cannot be read, or null);
    - `settings`: equal and default (how many keys), differing: {key: {arm: value}};
    - `runs`: run, name, arm, meta_seed, state, step, total, validation_loss, best_validation_loss, diverged,
      penalty_shares: {name: share}, best_scale, problem;
    - `tables`: task, inner_step, rows: label, kind, arm, optimizer, checkpoint, scale, learning_rate, rho, alpha,
      inner_step, passes, meta_seeds, seeds, diverged, figures: {name: interval}, or {name: {radius: interval}}, where
      an interval is {mean, low, high, n, over}, update_rule: {std, max, lipschitz} around the zero state, and best:
      names (and radii) in which the row is the best;
    - `paired`: task, inner_step, arm, reference, setting ("equal steps", "matched loss", "frontier"), figure, radius,
      kind ("difference": arm - reference, "ratio": arm / reference), mean, low, high, n (pairs), meta_seeds, over,
      p (of a two-sided t-test), outside, left_out, verdict, meta_seeds_match;
    - `notes`, `damaged_files`.
    """
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
                "problem": arm.runs[0].problem or None,
            }
            for arm in comparison.arms
        ],
        "settings": _settings(comparison),
        "runs": [{**asdict(run), "problem": run.problem or None} for run in comparison.runs],
        "tables": [
            {
                "task": table.task,
                "inner_step": table.inner_step,
                "rows": [_row(row, best) for row, best in zip(table.rows, _best(table), strict=True)],
            }
            for table in comparison.tables
        ],
        "paired": [
            {
                "task": effect.task,
                "inner_step": effect.inner_step,
                "arm": effect.arm,
                "reference": effect.reference,
                "setting": effect.setting,
                "figure": effect.figure.name,
                "radius": effect.figure.radius,
                "kind": effect.kind,
                **asdict(effect.interval),
                "outside": effect.outside,
                "left_out": effect.left_out,
                "verdict": effect.verdict,
                "meta_seeds_match": effect.meta_seeds_match,
            }
            for effect in comparison.effects
        ],
        "notes": list(comparison.notes),
        "damaged_files": comparison.damaged_files,
    }


def tidy(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    """Rows of TIDY_COLUMNS. Sections: run (arm is the run's id), table, and a paired one for each setting.

    None where a cell has nothing to say.
    """
    for run in comparison.runs:
        for name, value in _run_figures(run).items():
            if value is not None:
                yield ("run", None, None, run.run, name, None, value, None, None, 1)
    for table in comparison.tables:
        for row in table.rows:
            counts = {name: getattr(row, name) for name in ("passes", "seeds", "diverged")}
            for name, value in counts.items():
                yield ("table", table.task, row.inner_step, row.label, name, None, value, None, None, row.seeds)
            for figure, cell in row.figures.items():
                found = _interval(cell)
                numbers = (found["mean"], found["low"], found["high"], found["n"])
                yield ("table", table.task, row.inner_step, row.label, *figure, *numbers)
    for effect in comparison.effects:
        section = f"paired {effect.kind}, {effect.setting}"
        found = asdict(effect.interval)
        numbers = (found["mean"], found["low"], found["high"], found["n"])
        yield (section, effect.task, effect.inner_step, effect.arm, *effect.figure, *numbers)


def _settings(comparison: Comparison) -> dict[str, Any]:
    settings, labels = comparison.settings, [arm.label for arm in comparison.arms]
    differing = {key: dict(zip(labels, values, strict=True)) for key, values in settings.differing.items()}
    return {"equal": settings.equal, "default": settings.default, "differing": differing}


def _run_figures(run: RunFigures) -> dict[str, Any]:
    shares = {f"{name}_penalty_share": share for name, share in run.penalty_shares.items()}
    return {"step": run.step, **{name: getattr(run, name) for name in RUN_FIGURES}, **shares}


def _row(row: Row, best: list[list[str]]) -> dict[str, Any]:
    facts = row.facts
    return {
        "label": row.label,
        "kind": row.kind,
        "arm": row.arm,
        "optimizer": facts.optimizer,
        "checkpoint": facts.checkpoint or None,
        "scale": facts.scale,
        "learning_rate": facts.learning_rate,
        "rho": facts.rho,
        "alpha": facts.alpha,
        "inner_step": row.inner_step,
        "passes": row.passes,
        "meta_seeds": row.meta_seeds,
        "seeds": row.seeds,
        "diverged": row.diverged,
        "figures": _figures(row.figures),
        "update_rule": dict(row.update_rule),
        "best": best,
    }


def _best(table: Table) -> list[list[list[str]]]:
    """For each row the figures in which it is the best: [name], or [name, radius]."""
    figures = dict.fromkeys(figure for row in table.rows for figure in row.figures)
    found: list[list[list[str]]] = [[] for _ in table.rows]
    for figure in figures:
        for index in table.best(figure):
            found[index].append([part for part in figure if part is not None])
    return found


def _figures(figures: Mapping[Figure, Cell]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure, cell in figures.items():
        if figure.radius is None:
            found[figure.name] = _interval(cell)
        else:
            found.setdefault(figure.name, {})[figure.radius] = _interval(cell)
    return found


def _interval(cell: Cell) -> dict[str, Any]:
    known = cell.mean is not None and cell.ci95 is not None
    low, high = (cell.mean - cell.ci95, cell.mean + cell.ci95) if known else (None, None)  # type: ignore[operator]
    return {"mean": cell.mean, "low": low, "high": high, "n": cell.n, "over": cell.over}
