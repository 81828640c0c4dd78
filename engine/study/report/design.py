"""What the report says of the study itself: how far it is, what weakens it, how winners were picked, what was run and
what it cost.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison import notes, settings_table
from engine.presets.catalog import is_of_member
from engine.runs.provenance import machine_of, system_of
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.study.plan.kept import command, cost_of, without_places
from engine.study.plan.snapshot import summary
from engine.study.report.claim import TESTED, Claim
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
MOST_NAMED = 6
ASKED = ("seeds", "search.", "transfer.")  # what the table of keys is about
PAPER_KIND = "dm"  # the learned optimizer of Learning Regularizers is an LSTM


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


def picked(study: Evidence) -> Iterator[str]:
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
    ]
    yield bullets([*lines, *_cost(study), *_facts(study), *_differing(study)])
    asked = {key: value for key, value in summary(study.plan).items() if key.startswith(ASKED)}
    lists = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in asked.items()}
    yield table(["key", "value"], [[code(key), codes(map(show, values))] for key, values in lists.items()], left=2)
    yield "### Runs\n"
    yield paragraph("Winners' runs, whose figures the tables above show; [runs.csv](runs.csv) has every run.")
    rows = [[code(arm), " ".join(map(code, study.run_ids(arm)))] for arm in study.arms]
    yield table(["arm", "runs, by meta-seed"], rows, left=2)


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


def weaknesses(study: Evidence, claims: Iterable[Claim]) -> Iterator[str]:
    """What weakens the conclusions: what failed or is missing, how winners were picked, chance, few seeds."""
    yield from _unfinished(study)
    yield from _picked(study)
    yield from _missing(study)
    tested = sum(item.word in TESTED for claim in claims for item in claim.findings)
    if tested >= 20:
        yield (
            f"{tested} comparisons are counted in claims. Each claim is corrected for its own (Holm), not for the "
            "others'; the tables by arm and by task are not corrected: where nothing differs, one comparison in forty "
            "comes out better by chance alone."
        )
    if study.plan.report.get("paper") == "lr":
        yield "The paper's hyper-parameters and figures are not public: only the direction of claims can be compared."
        kinds = sorted({study.kind(arm) for arm in study.arms})
        if kinds and PAPER_KIND not in kinds:
            yield f"The paper's learned optimizer is an LSTM ({code(PAPER_KIND)}); here it is {_few(kinds)}."
    if study.damaged:
        yield f"Left out, as they could not be read: {count(study.damaged, 'transfer file')}."


def _unfinished(study: Evidence) -> Iterator[str]:
    without = [arm for arm in study.planned if arm not in study.winners]
    if without:
        yield f"No winner yet, or no candidate whose runs have all finished: {_few(without)}."
    if study.provisional:
        yield f"Winners that may still change, as runs of these arms have not ended: {_few(study.provisional)}."
    if study.open_pieces:
        states = Counter(piece.state for piece in study.open_pieces)
        yield f"Not done: {', '.join(f'{number} {state}' for state, number in sorted(states.items()))}."
    for piece in [piece for piece in study.seen.pieces if piece.state in ("failed", "crashed")][:MOST_NAMED]:
        message = without_places(piece.run.recorded_status().message)
        yield f"{piece.state.capitalize()}: {code(piece.run.id)}{f': {text(message)}' if message else ''}."
    failed = Counter(cell.cell.arm for cell in study.seen.cells if cell.state == "failed")
    if failed:
        counts = ", ".join(f"{code(arm)} {number}" for arm, number in failed.items())
        yield f"Candidates with a run that failed cannot win; such runs by arm: {counts}."
    if (search := study.plan.search) is not None:
        for arm in (arm.name for arm in study.plan.arms if arm.axes):
            if (tried := len(study.candidates_of(arm))) < search.trials:
                yield f"The search of {code(arm)} has tried {tried} of up to {search.trials} points."


def _picked(study: Evidence) -> Iterator[str]:
    values = {arm: [item for item in study.candidates_of(arm) if item.value is not None] for arm in study.planned}
    tried = {arm: len(items) for arm, items in values.items()}
    of_reference = tried.get(study.plan.reference, 0)
    more = [f"{code(arm)} {number}" for arm, number in tried.items() if number > of_reference]
    if more:
        yield f"Unequal tuning: the reference arm was the best of {of_reference}, others of more: {', '.join(more)}."
    edges = [line for arm in study.winners for line in _edges(study, arm)]
    if edges:
        yield f"Winners at an end of what was tried: a better value may lie beyond. {'; '.join(edges[:MOST_NAMED])}."
    close = []
    for arm in (arm for arm in study.winners if tried[arm] > 1):
        best, second = sorted(values[arm], key=lambda item: item.value or 0.0)[:2]
        around = mean(cell.value for cell in second.cells)
        if None not in (around.mean, around.ci95) and best.value >= around.mean - around.ci95:  # type: ignore[operator]
            close.append(arm)
    if close:
        yield f"Winners whose mean lies within the interval of the runner-up's: {codes(close)}."


def _edges(study: Evidence, arm: str) -> Iterator[str]:
    for axis in next(item.axes for item in study.plan.arms if item.name == arm):
        value, tried = study.winners[arm].point.get(axis.key), axis.values or (axis.low, axis.high)
        if is_number(value) and all(map(is_number, tried)) and value in (min(tried), max(tried)) and len(tried) > 1:
            yield f"{code(arm)} {code(f'{axis.key} = {show(value)}')}"


def _missing(study: Evidence) -> Iterator[str]:
    """What was not evaluated, or has no control; and what `lreg compare` says of these comparisons."""
    if study.plan.transfer is None:
        yield "No transfer evaluations were asked for: nothing is known about tasks that were not meta-trained on."
    else:
        evaluated = {task.partition(" ")[0] for task in study.tasks}
        if unseen := [name for name in study.plan.transfer.names if name not in evaluated]:
            yield f"Not evaluated: {codes(unseen)}."
    reference = study.arms.get(study.plan.reference)
    if reference is not None and len(study.arms) > 1:
        tables = [study.table(task, study.last(task)) for task in study.tasks]
        effects = [effect for effect in study.every_effect() if effect.inner_step == study.last(effect.task)]
        remarks = notes(list(study.arms.values()), reference, list(study.tasks.values()), tables, effects)
        yield from (f"{text(remark)}." for remark in remarks)
        if study.regularised and not any(map(study.is_neutral, study.arms)):
            yield "No re-weighting control (an arm whose penalty has rho = 0): a penalty also multiplies the meta-loss."


def _few(names: Sequence[str]) -> str:
    return codes(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
