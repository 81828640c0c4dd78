"""The runs that a study stands for, wherever runs are asked for: those of each arm's winner, all meta-seeds."""

from __future__ import annotations

from engine.base.errors import RunError, printable, shortened
from engine.runs.reader import RunReader
from engine.study.plan.snapshot import look_at


def winner_runs(study: RunReader) -> dict[str, list[RunReader]]:
    """The finished runs of the winner of every arm that has one, the reference arm first.

    As in the report, the winner of an arm that is still at work is the best so far. Raises RunError where the study's
    folder is damaged.
    """
    seen = look_at(study.path)
    best = sorted(seen.best.items(), key=lambda item: item[0] != seen.plan.reference)
    return {name: [cell.run for cell in winner.cells] for name, winner in best}


def transferred_runs(study: RunReader) -> list[RunReader]:
    """Those of the winners' runs that have transfer evaluations, the reference arm's first.

    Raises RunError where there are none.
    """
    winning = [run for runs in winner_runs(study).values() for run in runs]
    transferred = [run for run in winning if run.transfers()]
    if not transferred:
        status = study.status()
        message = f", {shortened(printable(status.message))}" if status.message else ""
        lacks = "none of its winners has been transferred yet" if winning else "no arm of it has a winner yet"
        raise RunError(f"study {study.id}: {lacks} ({status.state}{message})")
    return transferred
