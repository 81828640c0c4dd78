"""What the report says of the study itself: how far it is, what weakens it, how winners were picked, what was run and
what it cost.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison import settings_table
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS, has_frontier
from engine.comparison.report import ARM, ENOUGH_META_SEEDS
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.figures import Block
from engine.presets.catalog import is_of_member
from engine.runs.provenance import machine_of, system_of
from engine.runs.reader import RunReader
from engine.runs.results import mean
from engine.study.plan.kept import command, cost_of, without_places
from engine.study.report.claim import TESTED, Claim
from engine.study.report.evidence import HEADLINE, Evidence
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


def weaknesses(study: Evidence, claims: Iterable[Claim]) -> Iterator[str]:
    """What weakens the conclusions: few seeds, what failed or diverged, what is missing, how winners were picked."""
    yield from _unfinished(study)
    yield from _chance(study, claims)
    yield from _picked(study)
    yield from _missing(study)
    yield from _pairs(study)
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


def _chance(study: Evidence, claims: Iterable[Claim]) -> Iterator[str]:
    """Few meta-seeds, and many comparisons."""
    seeds = len(study.plan.seeds)
    if seeds == 1:
        yield (
            "One meta-seed: intervals are over optimizees. They compare these very runs, and say nothing about "
            "meta-training once more, so claims are not tested."
        )
    elif seeds < ENOUGH_META_SEEDS:
        untested = ", and claims are not tested" if seeds < FEWEST_META_SEEDS else ""
        yield (
            f"{seeds} meta-seeds, fewer than {ENOUGH_META_SEEDS}: t-intervals over so few are wide{untested}. What is "
            "not found may well be there."
        )
    tested = sum(item.word in TESTED for claim in claims for item in claim.findings)
    if tested >= 20:
        yield (
            f"{tested} comparisons are counted in claims. Each claim is corrected for its own (Holm), not for the "
            "others'; the tables by arm and by task are not corrected: where nothing differs, one comparison in forty "
            "comes out better by chance alone."
        )


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
    """What diverged, was not evaluated, or has no control."""
    lost = [
        f"{code(row.label)} {row.diverged} of {row.seeds} on {code(task)}"
        for task in study.tasks
        for row in study.table(task, study.last(task)).rows
        if row.kind == ARM and row.diverged
    ]
    if lost:
        more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
        yield f"Optimizees that diverged are left out of means and pairs: {', '.join(lost[:MOST_NAMED])}{more}."
    if study.plan.transfer is None:
        yield "No transfer evaluations were asked for: nothing is known about tasks that were not meta-trained on."
    else:
        tasks = {task.partition(" ")[0]: task for task in study.tasks}
        missing: dict[tuple[str, ...], list[str]] = {}
        for name in study.plan.transfer.names:
            arms = tuple(arm for arm in study.planned if not study.was_evaluated(tasks.get(name, ""), arm))
            missing.setdefault(arms, []).append(name)
        for arms, names in missing.items():
            if arms:
                yield f"Not evaluated on {codes(names)}: {_few(arms)}."
    if (reference := study.arms.get(study.plan.reference)) is not None and len(study.arms) > 1:
        without = [task for task in study.tasks if not has_frontier(study.tasks[task], study.last(task), reference)]
        if without:
            yield (
                f"No scale frontier on {_few(without)}: flatter minima there may come from the size of the updates "
                "alone ([transfer] scales)."
            )
        if study.regularised and not any(map(study.is_neutral, study.arms)):
            yield "No re-weighting control (an arm whose penalty has rho = 0): a penalty also multiplies the meta-loss."


def _pairs(study: Evidence) -> Iterator[str]:
    """Comparisons that have lost more than half of their pairs, whose meta-seeds differ, or that were probed unlike."""
    effects = list(study.every_effect())
    thin = Counter(
        effect.task
        for effect in effects
        if effect.setting == MATCHED_LOSS
        and effect.inner_step == study.last(effect.task)
        and effect.at == study.metric_at(effect.task, HEADLINE)
        and effect.interval.n < effect.outside + effect.left_out
    )
    for task, number in thin.items():
        yield (
            f"At matched train loss on {code(task)}, {count(number, 'arm')} lost more than half of the pairs, as one "
            "of both never comes down to that loss after the first mark: more marks at early steps would help."
        )
    in_order = {effect.arm for effect in effects if effect.setting == EQUAL_STEPS and not effect.meta_seeds_match}
    if in_order:
        yield f"No meta-seed in common with the reference, so paired in their order: {_few(sorted(in_order))}."
    for task in study.tasks:
        if len(study.table(task, study.last(task)).protocols) > 1:
            yield f"On {code(task)} the probes were not made alike (examples, restarts, ascent steps differ)."


def _few(names: Sequence[str]) -> str:
    return codes(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
