"""The loop of a study: look, start what can be started, wait; at last the report.

The scheduler keeps nothing in memory that matters: whoever kills it, the next one reads the folders and goes on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.base.control import Control, Stopped
from engine.base.errors import LregError, RunError
from engine.base.files import write_atomic
from engine.base.status import HELD, LIVE
from engine.jobs import spawn
from engine.jobs.job_runner import JobRunner
from engine.jobs.transfer_job import TransferJob
from engine.runs.kinds import STUDY
from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan import search
from engine.study.plan.plan import StudyPlan
from engine.study.plan.snapshot import Snapshot, Watcher, WorkItem, summary
from engine.study.plan.state import CellState, plan_of
from engine.study.plan.transfers import tasks
from engine.study.schedule import attempts, executors, inputs, slurm
from engine.study.schedule.attempts import Attempts, EtaEstimator
from engine.study.schedule.executors import Executor
from engine.study.schedule.job import Schedule, add_seeds, set_schedule

REST_S = 0.3
ASK_AGAIN_S = 3.0  # a worker that has just started does not listen yet
STOPPING = "stopping"  # a file that is there while workers are asked to stop


@dataclass(frozen=True)
class StudyProgress:
    """What the scheduler sees: for the display. `changed`: the pieces whose state is another than at the last look."""

    snapshot: Snapshot
    changed: list[WorkItem]
    eta_s: float | None
    message: str
    reasons: dict[Path, str]  # of the runs that are not tried again


Draw = Callable[..., Any]


"""Draws the report's figures; the engine itself has no plotting."""


Listener = Callable[[StudyProgress], None]


def nothing(look: StudyProgress) -> None:
    """Listen to nothing."""


class StudyJob(JobRunner):
    """A study in the hands of its scheduler."""

    kind = STUDY

    def __init__(
        self,
        run: Run,
        control: Control,
        device: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        draw: Draw | None = None,
        on_look: Listener = nothing,
        executor: Executor | None = None,
    ) -> None:
        """`executor`: in place of the one that the study's schedule names."""
        super().__init__(run, control, device, data_dir)
        self.draw = draw
        self.on_look = on_look
        self.folder = run.path
        self.store = RunStore(run.path.parent.parent)
        self._executor = executor

    @staticmethod
    def start(store_dir: Path, plan: StudyPlan, **facts: Any) -> Run:
        """Make the folder of a new study, as `Run.make` does."""
        return Run.make(STUDY, store_dir, plan.name, plan.dumps(), stamp=plan.stamp, **facts)

    @staticmethod
    def choices(reader: RunReader) -> dict[str, Any]:
        return summary(plan_of(reader.path))

    @staticmethod
    def tasks(reader: RunReader) -> Sequence[Mapping[str, Any]]:
        return tasks(plan_of(reader.path))

    def do(self) -> str:
        """Do what is left of the study. Returns finished, stopped, or failed: some run failed for good."""
        self._prepare()
        try:
            try:
                while not self._is_done():
                    self._tick()
                    time.sleep(REST_S)
            except Stopped:
                self._stop_workers()
                return "stopped"
            return self._conclude()
        except KeyboardInterrupt:  # a second Ctrl-C does not wait for the workers; the first may not have reached them
            write_atomic(self.folder / STOPPING, "")
            if left := self._left():
                self.executor.stop(left)
            raise

    def _prepare(self) -> None:
        if (home := STUDY.home) != self.folder.parent.name:  # of a run store, which its runs are made in
            raise RunError(f"{self.folder}: a study goes on in the folder {home} of a run store only: copy it there")
        self.plan: StudyPlan = plan_of(self.folder)
        schedule = Schedule.of(self.folder)
        self.watcher = Watcher(self.plan, self.folder)
        presets = [arm.preset for arm in self.plan.arms]
        self.executor: Executor = self._executor or executor_of(schedule, self.folder, presets, self.data_dir)
        if isinstance(self.executor, executors.Local) and not schedule.threads:
            # of another number sums are rounded otherwise: whoever goes on, on whatever machine, takes the same
            replace(schedule, threads=self.executor.threads).write(self.folder)
        self.exhausted: set[str] = set()  # arms for which a search has no more points
        self.verdicts: dict[Path, str] = {}
        self.states: dict[Path, str] | None = None  # at the last look
        self.seen = self.watcher.look()
        was_stopping = (self.folder / STOPPING).exists()  # and was killed: its workers may stop only now
        (self.folder / STOPPING).unlink(missing_ok=True)
        forgiven = [piece.run.path for piece in self.seen.pieces] if was_stopping else []
        self.attempts = Attempts(schedule.retry_failed, forgiven, self.executor.why)
        self.pace = EtaEstimator()

    def _look(self) -> None:
        self.pending = self.executor.pending()  # before the look, so that a worker is seen in one of the two
        self.seen = self.watcher.look(self._is_over, self.exhausted)

    def _is_done(self) -> bool:
        """One round: look, and start what can be started. True when there is nothing left to wait for."""
        self._tick()
        self._look()
        self.verdicts = {piece.run.path: self._verdict(piece) for piece in self.seen.pieces}
        self._tell()
        waiting = [piece for piece in self.seen.pieces if self.verdicts[piece.run.path] == attempts.START]
        busy = [piece.run for piece in self.seen.pieces if self.verdicts[piece.run.path] == attempts.BUSY]
        slots = self.executor.slots(busy) if waiting or self.plan.search else []
        if self.plan.search is not None and len(slots) > len(waiting):
            came, exhausted = search.ask_for_more(
                self.plan, self.folder, self.seen.candidates, self._is_over, len(slots) - len(waiting)
            )
            if came or exhausted - self.exhausted:
                self.exhausted |= exhausted
                return False
        self._start(list(zip(waiting, slots, strict=False)))
        return not busy and not waiting and not self._awaits_points()

    def _awaits_points(self) -> bool:
        """Whether a search will ask for more, when the executor is in reach again; not if a person holds it up."""
        has_all = len(self.watcher.asked_out(self.exhausted)) == len(self.plan.arms)
        return not has_all and attempts.LEFT not in self.verdicts.values()

    def _is_over(self, cell: CellState) -> bool:
        """Whether nothing more will come of a cell in this scheduler's life."""
        return self._verdict(cell) in (attempts.FINISHED, attempts.FAILED)

    def _verdict(self, piece: WorkItem) -> str:
        return self.attempts.verdict(piece.run, piece.state, self.pending)

    def _start(self, chosen: list[tuple[WorkItem, str]]) -> None:
        """Make the folders of those that have none, and hand all over together."""
        starts = []
        for piece, device in chosen:
            try:
                if piece.state == "missing":
                    self._make(piece, device)
            except LregError as error:
                self.attempts.give_up(piece.run, str(error))
                continue
            self.attempts.started(piece.run)
            starts.append((piece.run, device))
        if starts:
            self.executor.start(starts)

    def _make(self, piece: WorkItem, device: str) -> None:
        facts: dict[str, Any] = {"argv": ["lreg", "study", self.plan.name], "device": device, "data_dir": self.data_dir}
        if isinstance(piece, CellState):
            self.store.create(piece.cell.preset, run_id=piece.run.id, **facts)
        else:
            TransferJob.start(self.store.root, piece.transfer.plan(), run_id=piece.run.id, **facts)

    # -- what is said: to the study's folder, for whoever looks there, and to the listener ---------------------------

    def _tell(self) -> None:
        """What there is to say after a look."""
        seen, before = self.seen, self.states or {}
        changed = [piece for piece in seen.pieces if before.get(piece.run.path) != piece.state]
        for piece in changed if before else ():  # the first look would say everything again
            self.run.log(f"{words(piece)}: {piece.state}")
        if changed or self.states is None:
            counts = {name: seen.counts[name] for name in ("finished", "running", "failed")}
            self.run.append([{"step": seen.counts["finished"], **counts}])
        self.states = {piece.run.path: piece.state for piece in seen.pieces}
        eta = self.pace.eta(seen)
        self.run.progress(seen.counts["finished"], seen.total, eta)
        self._say(self._message(), changed, eta)

    def _say(self, message: str, changed: list[WorkItem], eta: float | None = None) -> None:
        self.run.note(message)
        self.on_look(StudyProgress(self.seen, changed, eta, message, self.attempts.reasons))

    def _message(self) -> str:
        parts = [f"{sum(piece.state == 'finished' for piece in self.seen.cells)} of {len(self.seen.cells)} runs"]
        if transfers := self.seen.transfers:
            parts.append(f"{sum(piece.state == 'finished' for piece in transfers)} of {len(transfers)} transfers")
        parts.append(f"{sum(piece.state in LIVE for piece in self.seen.pieces)} running")
        for text, verdict in {"failed for good": attempts.FAILED, "stopped by hand": attempts.LEFT}.items():
            if number := list(self.verdicts.values()).count(verdict):
                parts.append(f"{number} {text}")
        return ", ".join(parts)

    # -- signals -----------------------------------------------------------------------------------------------------

    def _wait_while_paused(self) -> None:
        """A pause is one of the workers, too; those that were paused before stay so."""
        if not self.control.paused or self.control.stop:
            return
        running = [piece.run for piece in self.seen.pieces if piece.state == "running"]
        signalled = [run for run in running if _sent(run, signal.SIGUSR1, "pause")]
        super()._wait_while_paused()
        for run in signalled:
            _sent(run, signal.SIGUSR2, "continue")

    def _stop_workers(self) -> None:
        """Let every worker of the study write its checkpoint and end."""
        write_atomic(self.folder / STOPPING, "")
        last_signal = -ASK_AGAIN_S
        while left := self._left():
            if time.monotonic() - last_signal >= ASK_AGAIN_S:
                last_signal = time.monotonic()
                self.executor.stop(left)
            self._say(f"stopping: {len(left)} workers write their checkpoints", [])
            time.sleep(REST_S)
        self._tell()
        (self.folder / STOPPING).unlink(missing_ok=True)

    def _left(self) -> list[RunReader]:
        """What workers still hold, or were handed, by a new look."""
        self._look()
        return [piece.run for piece in self.seen.pieces if piece.run.path in self.pending or piece.state in HELD]

    # -- the end -----------------------------------------------------------------------------------------------------

    def _conclude(self) -> str:
        """Write the report, and say how the study has ended."""
        reasons = {path.name: reason for path, reason in self.attempts.reasons.items()}
        for name, reason in reasons.items():
            self.run.log(f"{name}: given up: {reason}")
        self.run.set_status(message="report", eta_s=None)
        self.remark = f"report: {self._report()}"
        words = {path.name: word for path, word in self.verdicts.items()}
        left, failed = ([name for name in words if words[name] == word] for word in (attempts.LEFT, attempts.FAILED))
        if failed:
            first = "".join(f"; {name}: {reason}" for name, reason in list(reasons.items())[:1])
            self.remark = f"failed for good: {_few(failed)}{first}; lreg logs RUN says more; {self.remark}"
        elif left:
            self.remark = f"stopped by hand: {_few(left)}; lreg resume {self.run.id} goes on with them; {self.remark}"
        return "failed" if failed else "stopped" if left else "finished"

    def _report(self) -> Path:
        from engine.study.report.report import write_report

        return write_report(self.plan, self.folder, self.draw)


def executor_of(
    schedule: Schedule, folder: Path, presets: Sequence[Mapping[str, Any]], data_dir: Path | None
) -> Executor:
    """The executor that a study's schedule names. Raises LregError where there is none, or a device is not there."""
    if schedule.executor == "slurm":
        return slurm.executor(schedule, folder, data_dir)
    if schedule.executor != "local":
        raise LregError(f"--executor: found {schedule.executor!r}; allowed: local, slurm")
    return executors.local(schedule.devices, schedule.jobs, schedule.threads, presets, data_dir)


def words(piece: WorkItem) -> str:
    """Which run or transfer it is, for people."""
    if not isinstance(piece, CellState):
        return piece.transfer.words
    point = "".join(f" {key.split('.')[-1]}={value}" for key, value in piece.cell.point.items())
    return f"{piece.cell.arm}{point} seed {piece.cell.seed}"


def _sent(run: RunReader, number: signal.Signals, purpose: str) -> bool:
    with suppress(LregError):  # it has ended, or computes on another host
        spawn.request(run, number, purpose)
        return True
    return False


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def take_up(
    store: RunStore, plan: StudyPlan, unfinished: RunReader | None, schedule: Schedule, data_dir: Path | None
) -> Run:
    """Go on with this study, where it is there unfinished or with fewer meta-seeds; else make its folder.

    Raises LregError where its data, or a device of this machine that it is to have, is not there.
    """
    inputs.check_study(plan, schedule, data_dir)
    job = Run(unfinished.path) if unfinished else StudyJob.start(store.root, plan, argv=sys.argv, data_dir=data_dir)
    add_seeds(job, plan)
    set_schedule(job, schedule)
    return job


def go_on(path: Path, devices: str = "", data_dir: Path | None = None) -> Run:
    """Go on with a study as it was scheduled last, on other devices if told so; what has failed is tried again.

    Raises LregError as `take_up` does.
    """
    schedule = Schedule.of(path)
    schedule = replace(schedule, retry_failed=True, devices=devices or schedule.devices)
    return take_up(RunStore(path.parent.parent), plan_of(path), RunReader(path), schedule, data_dir)
