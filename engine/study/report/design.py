"""What the report says of the study itself: how far it is, how winners were picked, what was run and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.base.settings import show
from engine.comparison import settings_table
from engine.figures import Block
from engine.runs.results import mean
from engine.study.plan import cost
from engine.study.plan.plan import Axis
from engine.study.plan.state import Candidate
from engine.study.report.evidence import Evidence
from engine.study.report.markdown import NOTHING, bullets, code, count, duration, half_width, paragraph, table, text

MOST_CANDIDATES = 60  # lines of the table; the file has all
FACTS = {"lreg": "lreg", "torch": "torch", "numpy": "numpy", "python": "Python"}


def progress(found: Evidence) -> str:
    """Whether the study has finished, and what is not there."""
    pieces = found.seen.pieces
    states = Counter(piece.state for piece in pieces)
    done = f"{states['finished']} of {max(found.seen.total, len(pieces))} runs and transfer jobs"
    others = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if state != "finished")
    if not found.is_finished:
        return (
            f"**Not finished**: {done} are done{f' ({others})' if others else ''}. This is a report of what is there."
        )
    if states["failed"]:
        return f"**Finished, with failures**: {done} are done, {states['failed']} failed for good."
    return f"**Finished**: {count(len(found.seen.cells), 'run')}, {count(len(found.seen.transfers), 'transfer job')}."


def picked(found: Evidence, drawn: Mapping[str, Block]) -> Iterator[str]:
    """The rule, the winners, and all candidates."""
    metric = found.plan.pick.metric
    yield "## How winners were picked\n"
    yield paragraph(
        f"An arm's winner is the candidate (a point of its axes) with the least mean {code(metric)} over the "
        f"meta-seeds {', '.join(map(str, found.plan.seeds))}, once all its runs have finished. It is measured on a "
        "held-out part of the training data of the meta-training task; test data and the tasks of the transfers play "
        "no part."
    )
    rows = [row for arm in found.plan.arms for row in _candidates(found, arm.name)]
    yield table(["arm", "point", metric.replace("_", " "), "runs finished", ""], rows[:MOST_CANDIDATES], left=2)
    if len(rows) > MOST_CANDIDATES:
        yield paragraph(f"{len(rows) - MOST_CANDIDATES} more are in [candidates.csv](candidates.csv).")
    if block := drawn.get("candidates.png"):
        yield f"![candidates](candidates.png)\n\n{paragraph(text(block.caption))}"


def _candidates(found: Evidence, arm: str) -> list[list[str]]:
    """Of the arm, the best first: those without a value last."""
    known = [(item, mean(cell.value for cell in item.cells)) for item in found.candidates_of(arm)]
    known.sort(key=lambda pair: (pair[0].value is None, pair[0].value or 0.0))
    winner = found.winners.get(arm)
    provisional = "provisional winner" if arm in found.provisional else "winner"
    return [
        [
            code(arm),
            _point(item),
            half_width(value.mean, value.ci95),
            f"{sum(cell.state == 'finished' for cell in item.cells)} of {len(item.cells)}",
            provisional if item is winner else "",
        ]
        for item, value in known
    ]


def _point(item: Candidate) -> str:
    return code(", ".join(f"{key} = {show(value)}" for key, value in item.point.items())) or NOTHING


def what_was_run(found: Evidence) -> Iterator[str]:
    """Arms, axes, settings, versions, devices, cost, and every run."""
    yield "## What was run\n"
    rows = [_arm_row(found, arm.name, arm.axes) for arm in found.plan.arms]
    yield table(["arm", "penalties of the winner", "axes"], rows, left=3)
    lines = [f"Reference arm: {code(found.plan.reference)}.", f"Meta-seeds: {', '.join(map(str, found.plan.seeds))}."]
    if (search := found.plan.search) is not None:
        lines.append(
            f"Search: {search.sampler}, up to {search.trials} points for each arm with axes, seed {search.seed}."
        )
    yield bullets([*lines, *_transfer(found), *_facts(found), *_cost(found), *_differing(found)])
    yield "### Runs\n"
    yield paragraph("Winners' runs, whose figures the tables above show; [runs.csv](runs.csv) has every run.")
    rows = [[code(arm), " ".join(map(code, found.run_ids(arm)))] for arm in found.arms]
    yield table(["arm", "runs, by meta-seed"], rows, left=2)


def _arm_row(found: Evidence, arm: str, axes: Sequence[Axis]) -> list[str]:
    penalties = [
        " ".join([name, *(f"{key} {show(values[key])}" for key in ("weight", "rho", "epsilon") if key in values)])
        for name, values in found.penalties(arm).items()
    ]
    return [code(arm), text("; ".join(penalties) or "none"), "; ".join(map(_axis, axes)) or NOTHING]


def _axis(axis: Axis) -> str:
    values = ", ".join(map(show, axis.values)) if axis.values else f"{axis.low} to {axis.high}"
    return f"{code(axis.key)}: {text(values)}"


def _transfer(found: Evidence) -> Iterator[str]:
    request = found.plan.transfer
    if request is None:
        yield "No transfer evaluations were asked for."
        return
    parts = [f"of {request.of}", f"to {', '.join(map(code, request.to)) or 'the task of meta-training'}"]
    parts += [f"{key} {show(value)}" for key, value in request.settings.items()]
    parts += [f"scales {', '.join(f'{scale:g}' for scale in request.scales)}"] if request.scales else []
    parts += [f"baselines {', '.join(request.baselines)}"] if request.baselines else []
    parts += [f"evaluation.{key} {show(value)}" for key, value in request.evaluation.items()]
    yield f"Transfer evaluations {'; '.join(parts)}."


def _facts(found: Evidence) -> Iterator[str]:
    """Versions and machines of all runs that are there."""
    every: dict[str, set[str]] = {}
    for item in found.seen.cells:
        facts = item.run.facts if item.state != "missing" else {}
        versions: Any = facts.get("versions")
        for key, label in FACTS.items():
            if isinstance(versions, dict) and isinstance(versions.get(key), str):
                every.setdefault(label, set()).add(versions[key])
        for key, label in (("git", "git revision"), ("host", "hosts"), ("platform", "platform")):
            if isinstance(facts.get(key), str):
                every.setdefault(label, set()).add(facts[key])
    if every:
        yield "; ".join(f"{label} {', '.join(map(code, sorted(values)))}" for label, values in every.items()) + "."


def _cost(found: Evidence) -> Iterator[str]:
    runs = cost.total(item.run.path for item in found.seen.cells)
    jobs = cost.total(item.run.path for item in found.seen.transfers)
    both = runs + jobs
    if not both.seconds:
        return
    gpu = f"; of it on GPUs {duration(both.gpu_seconds)}" if both.gpu_seconds else ""
    yield (
        f"Cost: {duration(both.core_seconds)} of CPU threads ({duration(runs.core_seconds)} meta-training, "
        f"{duration(jobs.core_seconds)} transfers), {duration(both.seconds)} of processes{gpu}; devices "
        f"{', '.join(map(code, sorted(both.devices)))}. From the logs: threads given to a process, times how long it "
        "worked."
    )


def _differing(found: Evidence) -> Iterator[str]:
    """Settings beside the penalties in which the winners differ."""
    arms = list(found.arms.values())
    differing = settings_table(arms).differing if len(arms) > 1 else {}
    for key, values in differing.items():
        if not key.startswith("penalty."):
            there = [
                f"{code(arm.label)} {show(value)}" for arm, value in zip(arms, values, strict=True) if value is not None
            ]
            yield f"Differs between arms: {code(key)}: {', '.join(there)}."
