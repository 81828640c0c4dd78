"""What the report says of the study itself: how far it is, how winners were picked, what was run and what it cost."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from engine.base.settings import show
from engine.comparison import settings_table
from engine.figures import Block
from engine.presets.catalog import is_of_member
from engine.runs.provenance import machine_of, system_of
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.study.plan.cost import cost_of
from engine.study.plan.kept import command
from engine.study.report.evidence import Evidence
from engine.study.report.markdown import (
    NOTHING,
    bullets,
    code,
    codes,
    count,
    duration,
    half_width,
    paragraph,
    table,
    text,
)

MOST_CANDIDATES = 60  # lines of the table; the file has all


def progress(study: Evidence) -> str:
    """Whether the study has finished, and what is not there."""
    pieces, states = study.seen.pieces, study.seen.counts
    done = f"{states['finished']} of {max(study.seen.total, len(pieces))} runs and transfer jobs are done"
    if study.open_pieces or not pieces:
        others = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if state != "finished")
        return f"**Not finished**: {done}{f' ({others})' if others else ''}. This is a report of what is there."
    if states["failed"]:
        return f"**Finished, with failures**: {done}, {states['failed']} failed for good."
    return f"**Finished**: {count(len(study.seen.cells), 'run')}, {count(len(study.seen.transfers), 'transfer job')}."


def picked(study: Evidence, drawn: Mapping[str, Block]) -> Iterator[str]:
    """The rule, the winners, and all candidates."""
    metric = study.plan.pick.metric
    yield "## How winners were picked\n"
    yield paragraph(
        f"An arm's winner is the candidate (a point of its axes) with the least mean {code(metric)} over the "
        f"meta-seeds {', '.join(map(str, study.plan.seeds))}, once all its runs have finished. It is measured on a "
        "held-out part of the training data of the meta-training task; test data and the tasks of the transfers play "
        "no part."
    )
    rows = [row for arm in study.planned for row in _candidates(study, arm)]
    yield table(["arm", "point", metric.replace("_", " "), "runs finished", ""], rows[:MOST_CANDIDATES], left=2)
    if len(rows) > MOST_CANDIDATES:
        yield paragraph(f"{len(rows) - MOST_CANDIDATES} more are in [candidates.csv](candidates.csv).")
    if block := drawn.get("candidates.png"):
        yield f"![candidates](candidates.png)\n\n{paragraph(text(block.caption))}"


def _candidates(study: Evidence, arm: str) -> Iterator[list[str]]:
    """Of the arm, the best first: those without a value last."""
    candidates = study.candidates_of(arm)
    for item in sorted(candidates, key=lambda item: (item.value is None, item.value or 0.0)):
        value = mean(cell.value for cell in item.cells)
        rank = "provisional winner" if arm in study.provisional else "winner"
        yield [
            code(arm),
            code(", ".join(f"{key} = {show(value)}" for key, value in item.point.items())) or NOTHING,
            half_width(value.mean, value.ci95),
            f"{sum(cell.state == 'finished' for cell in item.cells)} of {len(item.cells)}",
            rank if item is study.winners.get(arm) else "",
        ]


def what_was_run(study: Evidence) -> Iterator[str]:
    """Commands, settings, versions, machines, cost, and every run."""
    yield "## What was run, and how to run it again\n"
    lines = [
        f"All of it: {code(shlex.join(command(study.plan.name, RunReader(study.folder).facts)))}.",
        "One run, from its folder in the run store: `lreg run RUN/preset.toml`; on the same processor, with as many "
        "threads, it repeats the figures.",
        f"Meta-seeds: {', '.join(map(str, study.plan.seeds))}.",
    ]
    if (search := study.plan.search) is not None:
        lines.append(
            f"Search: {search.sampler}, up to {search.trials} points for each arm with axes, seed {search.seed}."
        )
    yield bullets([*lines, *_cost(study), *_facts(study), _transfer(study), *_differing(study)])
    yield "### Runs\n"
    yield paragraph("Winners' runs, whose figures the tables above show; [runs.csv](runs.csv) has every run.")
    rows = [[code(arm), " ".join(map(code, study.run_ids(arm)))] for arm in study.arms]
    yield table(["arm", "runs, by meta-seed"], rows, left=2)


def _transfer(study: Evidence) -> str:
    request = study.plan.transfer
    if request is None:
        return "No transfer evaluations were asked for."
    parts = [f"of {request.of}", f"to {codes(request.to) or 'the task of meta-training'}"]
    parts += [f"{key} {show(value)}" for key, value in request.settings.items()]
    parts += [f"scales {', '.join(f'{scale:g}' for scale in request.scales)}"] if request.scales else []
    for words, values in (("weight decays", request.weight_decays), ("SAM at", request.sam)):
        parts += [f"{words} {', '.join(f'{value:g}' for value in values)}"] if values else []
    parts += [f"baselines {', '.join(request.baselines)}"] if request.baselines else []
    parts += [f"evaluation.{key} {show(value)}" for key, value in request.evaluation.items()]
    return f"Transfer evaluations {'; '.join(parts)}."


def _facts(study: Evidence) -> Iterator[str]:
    """Versions and machines of all runs that are there."""
    labels = {"lreg": "lreg", "torch": "torch", "numpy": "numpy", "python": "Python"}
    labels |= {"git": "git revision", "platform": "platform", "cpu": "processor"}
    told: dict[str, set[str]] = {}
    for item in (item for item in study.seen.cells if item.state != "missing"):
        versions = item.run.facts.get("versions")
        facts = {
            **item.run.facts,
            **(versions if isinstance(versions, dict) else {}),
            "platform": system_of(item.run.facts),
            "cpu": machine_of(item.run.facts),
        }
        for key, label in labels.items():
            if facts.get(key) and isinstance(facts[key], str):
                told.setdefault(label, set()).add(facts[key])
    if told:
        yield "; ".join(f"{label} {codes(sorted(told[label]))}" for label in labels.values() if label in told) + "."


def _cost(study: Evidence) -> Iterator[str]:
    runs, jobs = ([piece.run.path for piece in pieces] for pieces in (study.seen.cells, study.seen.transfers))
    of_runs, of_jobs, both = cost_of(*runs), cost_of(*jobs), cost_of(*runs, *jobs)
    if both.seconds:
        gpu = f"; of it on GPUs {duration(both.gpu_seconds)}" if both.gpu_seconds else ""
        yield (
            f"Time: {duration(both.seconds)} of processes ({duration(of_runs.seconds)} meta-training, "
            f"{duration(of_jobs.seconds)} transfers), CPU threads of each: "
            f"{' or '.join(map(str, sorted(both.threads)))}, {duration(both.core_seconds)} of threads{gpu}; devices "
            f"{codes(sorted(both.devices))}. By the logs, pauses left out; what else the machine did is in it."
        )


def _differing(study: Evidence) -> Iterator[str]:
    """Settings beside those of penalties and terms in which the winners differ."""
    arms = list(study.arms.values())
    for key, values in settings_table(arms).differing.items() if len(arms) > 1 else ():
        if not is_of_member(key):
            told = [(arm, value) for arm, value in zip(arms, values, strict=True) if value is not None]
            yield f"Differs between arms: {code(key)}: {', '.join(f'{code(a.label)} {show(v)}' for a, v in told)}."
