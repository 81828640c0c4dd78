"""What a scheduler says of its study: to its folder, for whoever looks there, and to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.runs.writer import Run
from engine.study.plan import attempts
from engine.study.plan.snapshot import Piece, Snapshot, live
from engine.study.plan.state import CellState


@dataclass(frozen=True)
class Look:
    """What the scheduler sees: for the display. `changed`: the pieces whose state is another than at the last look."""

    snapshot: Snapshot
    changed: list[Piece]
    eta_s: float | None
    message: str
    reasons: dict[Path, str]  # of the runs that are not tried again


Listener = Callable[[Look], None]


def nothing(look: Look) -> None:
    """Listen to nothing."""


class ProgressReporter:
    """Notes in the study's folder, and tells a listener, what has changed and how far the study is."""

    def __init__(self, run: Run, on_look: Listener, first_done: float, worked_s: Callable[[], float]) -> None:
        """`first_done`: what was done before this scheduler began; `worked_s`: how long it has worked since."""
        self.run = run
        self.on_look = on_look
        self.first_done = first_done
        self.worked_s = worked_s
        self.states: dict[Path, str] = {}

    def tell(self, seen: Snapshot, verdicts: Iterable[str], reasons: dict[Path, str]) -> None:
        """What there is to say after a look."""
        changed = [piece for piece in seen.pieces if self.states.get(piece.run.path) != piece.state]
        for piece in changed if self.states else ():  # the first look would say everything again
            self.run.log(f"{words(piece)}: {piece.state}")
        if changed or not self.states:
            counts = {name: seen.counts[name] for name in ("finished", "running", "failed")}
            self.run.append([{"step": seen.counts["finished"], **counts}])
        self.states = {piece.run.path: piece.state for piece in seen.pieces}
        eta, message = self._eta(seen), _message(seen, list(verdicts))
        self.run.progress(seen.counts["finished"], seen.total, eta)
        self.run.note(message)
        self.on_look(Look(seen, changed, eta, message, reasons))

    def say(self, seen: Snapshot, message: str) -> None:
        """Something else that is under way."""
        self.run.note(message)
        self.on_look(Look(seen, [], None, message, {}))

    def _eta(self, seen: Snapshot) -> float | None:
        """As if every piece took as long as those of which something was done in this scheduler's life."""
        gained = seen.done - self.first_done
        return self.worked_s() / gained * max(0.0, seen.total - seen.done) if gained > 0 else None


def _message(seen: Snapshot, verdicts: list[str]) -> str:
    finished = sum(cell.state == "finished" for cell in seen.cells)
    parts = [f"{finished} of {len(seen.cells)} runs"]
    if seen.transfers:
        ended = sum(transfer.state == "finished" for transfer in seen.transfers)
        parts.append(f"{ended} of {len(seen.transfers)} transfers")
    parts.append(f"{len(live(seen.pieces))} running")
    told = {"failed for good": attempts.FAILED, "stopped by hand": attempts.LEFT}
    return ", ".join([*parts, *(f"{n} {text}" for text, verdict in told.items() if (n := verdicts.count(verdict)))])


def words(piece: Piece) -> str:
    """Which run or transfer it is, for people."""
    if not isinstance(piece, CellState):
        return piece.transfer.words
    point = "".join(f" {key.split('.')[-1]}={value}" for key, value in piece.cell.point.items())
    return f"{piece.cell.arm}{point} seed {piece.cell.seed}"
