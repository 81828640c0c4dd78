"""What weakens a study's conclusions: few seeds, what failed or diverged, what is missing, how winners were picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS, has_frontier
from engine.comparison.report import ARM, ENOUGH_META_SEEDS
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.runs.results import mean
from engine.study.plan.kept import without_places
from engine.study.report.claim import TESTED, Claim
from engine.study.report.evidence import HEADLINE, Evidence
from engine.study.report.markdown import code, codes, count, text

MOST_NAMED = 6
PAPER_KIND = "dm"  # the learned optimizer of Learning Regularizers is an LSTM


def reasons(study: Evidence, claims: Iterable[Claim]) -> Iterator[str]:
    """One line each."""
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
            if (asked := len(study.candidates_of(arm))) < search.trials:
                yield f"The search of {code(arm)} has tried {asked} of up to {search.trials} points."


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
            arms = tuple(arm for arm in study.planned if not _has_outcomes(study, tasks.get(name), arm))
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


def _has_outcomes(study: Evidence, task: str | None, arm: str) -> bool:
    entry = study.tasks[task].main(study.arms[arm]) if task is not None and arm in study.arms else None
    return entry is not None and bool(entry.steps)


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
