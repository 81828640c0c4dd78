"""What weakens a study's conclusions: few seeds, what failed or diverged, what is missing, how winners were picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from engine.base.settings import show
from engine.base.status import is_number
from engine.comparison.outcomes import TaskOutcomes
from engine.comparison.paired import EQUAL_STEPS, MATCHED_LOSS, has_frontier
from engine.comparison.report import ENOUGH_META_SEEDS
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.evaluation.transfer_plan import GRID
from engine.runs.results import mean
from engine.study.report.claim import Claim
from engine.study.report.evidence import Evidence
from engine.study.report.findings import UNTESTED
from engine.study.report.markdown import code, count, text
from engine.study.report.trainers import trainers

MOST_NAMED = 6
PAPER_KIND = "dm"  # the learned optimizer of Learning Regularizers is an LSTM


def reasons(found: Evidence, groups: Iterable[list[Claim]]) -> Iterator[str]:
    """One line each."""
    yield from _unfinished(found)
    yield from _searched(found)
    yield from _seeds(found)
    yield from _chance(claim for group in groups for claim in group)
    yield from _picked(found)
    yield from _diverged(found)
    yield from _missing_tasks(found)
    yield from _missing_controls(found)
    yield from _pairs(found)
    yield from _protocols(found)
    yield from _unlike_the_paper(found)
    if found.damaged:
        yield f"Left out, as they could not be read: {count(found.damaged, 'transfer file')}."


def _unfinished(found: Evidence) -> Iterator[str]:
    without = [arm.name for arm in found.plan.arms if arm.name not in found.winners]
    if without:
        yield f"No winner yet, or no candidate whose runs have all finished: {_few(without)}."
    if found.provisional:
        yield f"Winners that may still change, as runs of these arms have not ended: {_few(found.provisional)}."
    if found.open_pieces:
        states = Counter(piece.state for piece in found.open_pieces)
        yield f"Not done: {', '.join(f'{number} {state}' for state, number in sorted(states.items()))}."
    for piece in [piece for piece in found.seen.pieces if piece.state in ("failed", "crashed")][:MOST_NAMED]:
        message = piece.run.recorded_status().message
        yield f"{piece.state.capitalize()}: {code(piece.run.id)}{f': {text(message)}' if message else ''}."
    failed = [cell.cell.arm for cell in found.seen.cells if cell.state == "failed"]
    if failed:
        counts = ", ".join(f"{code(arm)} {number}" for arm, number in Counter(failed).items())
        yield f"Candidates with a run that failed cannot win; such runs by arm: {counts}."


def _searched(found: Evidence) -> Iterator[str]:
    """Searches that have asked for fewer points than they may."""
    search = found.plan.search
    if search is None:
        return
    for arm in (arm for arm in found.plan.arms if arm.axes):
        asked = len(found.candidates_of(arm.name))
        if asked < search.trials:
            yield f"The search of {code(arm.name)} has tried {asked} of up to {search.trials} points."


def _seeds(found: Evidence) -> Iterator[str]:
    seeds = len(found.plan.seeds)
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


def _chance(claims: Iterable[Claim]) -> Iterator[str]:
    tested = sum(item.word not in UNTESTED for claim in claims for item in claim.findings)
    if tested >= 20:
        yield (
            f"{tested} comparisons are counted in claims. Each claim is corrected for its own (Holm), not for the "
            "others'; the tables by arm and by task are not corrected: where nothing differs, one comparison in forty "
            "comes out better by chance alone."
        )


def _picked(found: Evidence) -> Iterator[str]:
    tried = {arm.name: sum(item.value is not None for item in found.candidates_of(arm.name)) for arm in found.plan.arms}
    mine = tried.get(found.plan.reference, 0)
    more = [f"{code(arm)} {number}" for arm, number in tried.items() if number > mine]
    if more:
        yield f"Unequal tuning: the reference arm was the best of {mine}, others of more: {', '.join(more)}."
    edges = [line for arm in found.winners for line in _edges(found, arm)]
    if edges:
        yield f"Winners at an end of what was tried: a better value may lie beyond. {'; '.join(edges[:MOST_NAMED])}."
    close = [code(arm) for arm in found.winners if _is_close(found, arm)]
    if close:
        yield f"Winners whose mean lies within the interval of the runner-up's: {', '.join(close)}."


def _edges(found: Evidence, arm: str) -> Iterator[str]:
    plan = next(item for item in found.plan.arms if item.name == arm)
    for axis in plan.axes:
        value = found.winners[arm].point.get(axis.key)
        ends = (
            (axis.low, axis.high) if not axis.values else (min(axis.values, key=_order), max(axis.values, key=_order))
        )
        if is_number(value) and value in ends and ends[0] != ends[1]:
            yield f"{code(arm)} {code(f'{axis.key} = {show(value)}')}"


def _order(value: object) -> float:
    return float(value) if is_number(value) else 0.0  # type: ignore[arg-type]


def _is_close(found: Evidence, arm: str) -> bool:
    ranked = sorted(
        (item for item in found.candidates_of(arm) if item.value is not None), key=lambda item: item.value or 0.0
    )
    if len(ranked) < 2:
        return False
    second = mean(cell.value for cell in ranked[1].cells)
    best = ranked[0].value
    return None not in (best, second.mean, second.ci95) and best >= second.mean - second.ci95  # type: ignore[operator]


def _diverged(found: Evidence) -> Iterator[str]:
    lost = [
        f"{code(trainer.label)} {trainer.diverged} of {len(trainer.every)} on {code(task)}"
        for task in found.tasks
        for trainer in trainers(found, task, found.last(task))
        if trainer.kind == "arm" and trainer.diverged
    ]
    if lost:
        more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
        yield f"Optimizees that diverged are left out of means and pairs: {', '.join(lost[:MOST_NAMED])}{more}."


def _missing_tasks(found: Evidence) -> Iterator[str]:
    if found.plan.transfer is None:
        yield "No transfer evaluations were asked for: nothing is known about tasks that were not meta-trained on."
        return
    wanted = [name for target in found.plan.transfer.to for name in (GRID if target == "all" else [target])]
    there = {task.partition(" ")[0]: outcomes for task, outcomes in found.tasks.items()}
    missing: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(wanted):
        arms = [arm.name for arm in found.plan.arms if not _was_evaluated(found, there.get(name), arm.name)]
        missing.setdefault(tuple(arms), []).append(name)
    for lacking, names in missing.items():
        if lacking:
            yield f"Not evaluated on {', '.join(map(code, names))}: {_few(list(lacking))}."


def _was_evaluated(found: Evidence, outcomes: TaskOutcomes | None, arm: str) -> bool:
    if outcomes is None or arm not in found.arms:
        return False
    entry = outcomes.main(found.arms[arm])
    return entry is not None and bool(entry.steps)


def _missing_controls(found: Evidence) -> Iterator[str]:
    if (reference := found.arms.get(found.plan.reference)) is None or len(found.arms) < 2:
        return
    without = [task for task, own in found.tasks.items() if not has_frontier(own, found.last(task), reference)]
    if without:
        yield (
            f"No scale frontier on {_few(without)}: flatter minima there may come from the size of the updates alone "
            "([transfer] scales)."
        )
    if not any(found.is_neutral(arm) for arm in found.arms) and found.regularised:
        yield "No re-weighting control (an arm whose penalty has rho = 0): a penalty also multiplies the meta-loss."


def _pairs(found: Evidence) -> Iterator[str]:
    """Comparisons that have lost more than half of their pairs."""
    thin = Counter(
        effect.task
        for effect in found.every_effect()
        if effect.setting == MATCHED_LOSS
        and effect.inner_step == found.last(effect.task)
        and effect.figure.name == "test_accuracy"
        and effect.interval.n < effect.outside + effect.left_out
    )
    for task, number in thin.items():
        yield (
            f"At matched train loss on {code(task)}, {count(number, 'arm')} lost more than half of the pairs, as one "
            "of both never comes down to that loss after the first mark: more marks at early steps would help."
        )
    orders = {
        effect.arm for effect in found.every_effect() if effect.setting == EQUAL_STEPS and not effect.meta_seeds_match
    }
    if orders:
        yield f"No meta-seed in common with the reference, so paired in their order: {_few(sorted(orders))}."


def _protocols(found: Evidence) -> Iterator[str]:
    for task in found.tasks:
        step = found.last(task)
        known = {item.entry.facts_at(step).protocol for item in trainers(found, task, step)}
        if len(known) > 1:
            yield f"On {code(task)} the probes were not made alike (examples, restarts, ascent steps differ)."


def _unlike_the_paper(found: Evidence) -> Iterator[str]:
    kinds = {found.kind(arm) for arm in found.arms}
    if found.plan.report.get("paper") == "lr":
        yield "The paper's hyper-parameters and figures are not public: only the direction of claims can be compared."
        if kinds and PAPER_KIND not in kinds:
            yield f"The paper's learned optimizer is an LSTM ({code(PAPER_KIND)}); here it is {_few(sorted(kinds))}."


def _few(names: list[str]) -> str:
    shown = ", ".join(map(code, names[:MOST_NAMED]))
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown
