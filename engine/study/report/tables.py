"""The report's tables for other programs: CSV files in which every figure names the runs that it comes from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.export.tables import cell
from engine.figures.evaluated import estimate
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.study.plan import cost
from engine.study.report.claim import Claim
from engine.study.report.evidence import Evidence
from engine.study.report.papers import xh as claims_xh
from engine.study.report.trainers import Trainer, trainers

Row = Sequence[Any]
RUNS = (
    "arm point meta_seed winner state picked_by value diverged skipped run device host lreg torch git hours core_hours"
)
CANDIDATES = "arm point picked_by mean ci95 n meta_seeds winner runs"
RESULTS = "task inner_step optimizer kind figure radius mean low high meta_seeds optimizees diverged passes scale "
RESULTS += "learning_rate rho alpha runs"
PAIRED = "task inner_step arm reference setting figure radius kind mean low high p pairs meta_seeds outside "
PAIRED += "left_out verdict runs reference_runs"
CLAIMS = "claim verdict open row column word task inner_step arms setting figure radius kind mean low high n p runs"
NUMBERS = "regulariser paper_mean paper_spread arm mean standard_deviation n remark runs"


def tables(found: Evidence, claims: Iterable[Claim]) -> Iterator[tuple[str, str]]:
    """File names and their text."""
    yield "runs.csv", written(RUNS, runs(found))
    yield "candidates.csv", written(CANDIDATES, candidates(found))
    yield "results.csv", written(RESULTS, results(found))
    yield "paired.csv", written(PAIRED, paired(found))
    yield "claims.csv", written(CLAIMS, (row for claim in claims for row in rests_on(found, claim)))
    if found.plan.report.get("paper") == "xh" and (numbers := claims_xh.table_1(found)):
        yield "xh-table1.csv", written(NUMBERS, (_number(found, item) for item in numbers))


def written(header: str, rows: Iterable[Row]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header.split())
    writer.writerows([cell(value) for value in row] for row in rows)
    return file.getvalue()


def runs(found: Evidence) -> Iterator[Row]:
    """Every run of the study, whatever became of it."""
    chosen = {item.run.id for winner in found.winners.values() for item in winner.cells}
    for item in found.seen.cells:
        known = item.state != "missing"
        facts, status = (item.run.facts, item.run.recorded_status()) if known else ({}, None)
        figures = RunReader(item.run.path).figures() if item.state == "finished" else {}
        versions: Any = facts.get("versions")
        versions = versions if isinstance(versions, dict) else {}
        spent = cost.cost_of(item.run.path)
        yield (
            item.cell.arm,
            _point(item.cell.point),
            item.cell.seed,
            int(item.run.id in chosen),
            item.state,
            found.plan.pick.metric,
            item.value,
            figures.get("diverged"),
            figures.get("skipped"),
            item.run.id,
            status.device if status is not None else None,
            facts.get("host"),
            versions.get("lreg"),
            versions.get("torch"),
            facts.get("git"),
            round(spent.seconds / 3600, 4),
            round(spent.core_seconds / 3600, 4),
        )


def candidates(found: Evidence) -> Iterator[Row]:
    for item in found.seen.candidates:
        value = mean(one.value for one in item.cells if one.state == "finished")
        winner = int(found.winners.get(item.arm) is item)
        ids = " ".join(one.run.id for one in item.cells)
        metric = found.plan.pick.metric
        yield item.arm, _point(item.point), metric, value.mean, value.ci95, value.n, len(item.cells), winner, ids


def results(found: Evidence) -> Iterator[Row]:
    """Means over meta-seeds of the means over their optimizees, with t-intervals over meta-seeds."""
    for task, steps in found.steps.items():
        for step in steps:
            for trainer in trainers(found, task, step):
                yield from _results(found, task, trainer)


def _results(found: Evidence, task: str, trainer: Trainer) -> Iterator[Row]:
    facts, outcomes = trainer.entry.facts_at(trainer.step), trainer.outcomes
    meta_seeds = len(outcomes) if trainer.arm else None
    settings = (trainer.step * facts.passes_per_step, facts.scale, facts.learning_rate, facts.rho, facts.alpha)
    counts = (meta_seeds, len(trainer.every), trainer.diverged)
    ids = " ".join(found.run_ids(trainer.arm))
    for figure in dict.fromkeys(figure for outcome in trainer.every for figure in outcome.figures):
        value = estimate(outcomes, figure) or (None, None, None)
        yield task, trainer.step, trainer.label, trainer.kind, *figure, *value, *counts, *settings, ids


def paired(found: Evidence) -> Iterator[Row]:
    """Every arm against the reference arm."""
    for effect in found.every_effect():
        interval = effect.interval
        yield (
            effect.task,
            effect.inner_step,
            effect.arm,
            effect.reference,
            effect.setting,
            *effect.figure,
            effect.kind,
            interval.mean,
            interval.low,
            interval.high,
            interval.p,
            interval.n,
            interval.meta_seeds,
            effect.outside,
            effect.left_out,
            effect.verdict,
            " ".join(found.run_ids(effect.arm)),
            " ".join(found.run_ids(effect.reference)),
        )


def rests_on(found: Evidence, claim: Claim) -> Iterator[Row]:
    """The comparisons that a claim rests on; one line without, where there are none."""
    waiting = " ".join(claim.waiting)  # the arms of which something is still open
    for item in claim.findings:
        figure = item.figure or (None, None)
        interval = item.interval
        numbers = (interval.mean, interval.low, interval.high, interval.n) if interval is not None else (None,) * 4
        where = (item.row, item.column, item.word, item.task, item.inner_step, " ".join(item.arms), item.setting)
        ids = " ".join(run for arm in item.arms for run in found.run_ids(arm))
        yield claim.name, claim.verdict, waiting, *where, *figure, item.kind, *numbers, item.p, ids
    if not claim.findings:
        yield claim.name, claim.verdict, waiting, *[None] * (len(CLAIMS.split()) - 3)


def _number(found: Evidence, item: claims_xh.Number) -> Row:
    ids = " ".join(found.run_ids(item.arm))
    return item.regulariser, *item.paper, item.arm, item.mean, item.deviation, item.n, item.remark, ids


def _point(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True, default=list)
