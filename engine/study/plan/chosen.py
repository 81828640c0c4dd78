"""The runs that a study stands for, wherever runs are asked for: those of each arm's winner, all meta-seeds."""

from __future__ import annotations

from pathlib import Path

from engine.base.errors import LregError, RunError, printable, shortened
from engine.runs.reader import RunReader
from engine.study.plan.snapshot import DAMAGE, Snapshot, Watcher
from engine.study.plan.state import plan_of, winners


def winner_runs(study: RunReader) -> dict[str, list[RunReader]]:
    """The finished runs of the winner of every arm that has one, the reference arm first.

    As in the report, the winner of an arm that is still at work is the best so far. Raises RunError where the study's
    folder is damaged.
    """
    seen = _look(study.path)
    best = {**winners(seen.candidates), **seen.winners}
    order = sorted((arm.name for arm in seen.plan.arms), key=lambda name: name != seen.plan.reference)
    return {name: [cell.run for cell in best[name].cells] for name in order if name in best}


def transferred_runs(study: RunReader) -> list[RunReader]:
    """Those of the winners' runs that have transfer evaluations, the reference arm's first.

    Raises RunError where there are none.
    """
    winning = [run for runs in winner_runs(study).values() for run in runs]
    found = [run for run in winning if run.transfers()]
    if not found:
        status = study.status()
        message = f", {shortened(printable(status.message))}" if status.message else ""
        lacks = "none of its winners has been transferred yet" if winning else "no arm of it has a winner yet"
        raise RunError(f"study {study.id}: {lacks} ({status.state}{message})")
    return found


def _look(folder: Path) -> Snapshot:
    try:
        return Watcher(plan_of(folder), folder).look()
    except DAMAGE as error:
        said = str(error).splitlines()[0] if isinstance(error, LregError) else f"damaged ({type(error).__name__})"
        raise RunError(f"{folder / 'study.json'}: {said.removeprefix('study.json: ')}") from None
