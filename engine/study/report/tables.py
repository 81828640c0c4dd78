"""The report's tables for other programs: CSV files in which every figure names the runs that it comes from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.export.tables import cell
from engine.runs.provenance import machine_of
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.study.plan.kept import cost_of
from engine.study.report.claim import Claim
from engine.study.report.evidence import Evidence
from engine.study.report.papers import xh

Cells = dict[str, Any]
"""A line of a table, by column."""
RESULT_FACTS = ("scale", "learning_rate", "rho", "alpha", "weight_decay", "sam")
COLUMNS = {
    "runs.csv": "arm point meta_seed winner state picked_by value diverged skipped run device cpu lreg torch git "
    "hours core_hours",
    "candidates.csv": "arm point picked_by mean ci95 n meta_seeds winner runs",
    "results.csv": "task inner_step optimizer kind figure radius mean low high meta_seeds optimizees diverged passes "
    "scale learning_rate rho alpha weight_decay sam runs",
    "paired.csv": "task inner_step arm reference setting figure radius kind mean low high p detectable pairs "
    "meta_seeds outside left_out verdict runs reference_runs",
    "claims.csv": "claim verdict open row column word task inner_step arms setting figure radius kind mean low high "
    "n p detectable runs",
    "xh-table1.csv": "regulariser paper_mean paper_spread arm mean standard_deviation n remark runs",
}


def tables(study: Evidence, claims: Iterable[Claim]) -> Iterator[tuple[str, str]]:
    """File names and their text."""
    numbers = [vars(item) | {"runs": _ids(study, item.arm)} for item in xh.table_1(study)]
    rows = {
        "runs.csv": runs(study),
        "candidates.csv": candidates(study),
        "results.csv": results(study),
        "paired.csv": paired(study),
        "claims.csv": (row for claim in claims for row in rests_on(study, claim)),
        **({"xh-table1.csv": numbers} if numbers else {}),
    }
    for name, lines in rows.items():
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, COLUMNS[name].split(), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in line.items()} for line in lines)
        yield name, file.getvalue()


def runs(study: Evidence) -> Iterator[Cells]:
    """Every run of the study, whatever became of it."""
    chosen = {item.run.id for winner in study.winners.values() for item in winner.cells}
    for item in study.seen.cells:
        facts: Mapping[str, Any] = item.run.facts if item.state != "missing" else {}
        versions = facts.get("versions")
        spent = cost_of(item.run.path)
        yield {
            **(versions if isinstance(versions, dict) else {}),
            "cpu": machine_of(facts),
            "git": facts.get("git"),
            **(RunReader(item.run.path).figures() if item.state == "finished" else {}),
            "arm": item.cell.arm,
            "point": _point(item.cell.point),
            "meta_seed": item.cell.seed,
            "winner": int(item.run.id in chosen),
            "state": item.state,
            "picked_by": study.plan.pick.metric,
            "value": item.value,
            "run": item.run.id,
            "device": item.run.recorded_status().device if item.state != "missing" else None,
            "hours": round(spent.seconds / 3600, 4),
            "core_hours": round(spent.core_seconds / 3600, 4),
        }


def candidates(study: Evidence) -> Iterator[Cells]:
    for item in study.seen.candidates:
        yield {
            "arm": item.arm,
            "point": _point(item.point),
            "picked_by": study.plan.pick.metric,
            **vars(mean(cell.value for cell in item.cells if cell.state == "finished")),
            "meta_seeds": len(item.cells),
            "winner": int(study.winners.get(item.arm) is item),
            "runs": " ".join(cell.run.id for cell in item.cells),
        }


def results(study: Evidence) -> Iterator[Cells]:
    """Means over meta-seeds of the means over their optimizees, with t-intervals over meta-seeds."""
    for task, step in ((task, step) for task, steps in study.steps.items() for step in steps):
        for row in study.table(task, step).rows:
            shared = {
                **{name: getattr(row.facts, name) for name in RESULT_FACTS},
                **{name: getattr(row, name) for name in ("inner_step", "kind", "diverged", "passes")},
                "task": task,
                "optimizer": row.label,
                "meta_seeds": row.meta_seeds if row.arm else None,
                "optimizees": row.seeds,
                "runs": _ids(study, row.arm or ""),
            }
            for reading, value in row.metrics.items():
                low, high = value.low, value.high
                at = {"figure": reading.name, "radius": reading.radius}
                yield {**shared, **at, "mean": value.mean, "low": low, "high": high}


def paired(study: Evidence) -> Iterator[Cells]:
    """Every arm against the reference arm."""
    for effect in study.every_effect():
        yield {
            **vars(effect),
            **vars(effect.interval),
            "pairs": effect.interval.n,
            "figure": effect.at.name,
            "radius": effect.at.radius,
            "runs": _ids(study, effect.arm),
            "reference_runs": _ids(study, effect.reference),
        }


def rests_on(study: Evidence, claim: Claim) -> Iterator[Cells]:
    """The comparisons that a claim rests on; one line without, where there are none."""
    shared = {"claim": claim.name, "verdict": claim.verdict, "open": " ".join(claim.waiting)}
    for item in claim.findings:
        yield {
            **vars(item),
            **(vars(item.interval) if item.interval is not None else {}),
            "p": item.p,
            "arms": " ".join(item.arms),
            "figure": item.at.name if item.at is not None else None,
            "radius": item.at.radius if item.at is not None else None,
            "runs": _ids(study, *item.arms),
            **shared,
        }
    if not claim.findings:
        yield shared


def _ids(study: Evidence, *arms: str) -> str:
    return " ".join(run for arm in arms for run in study.run_ids(arm))


def _point(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True, default=list)
