"""Start and steer runs: run, resume, stop, pause, continue."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from engine import worker
from engine.control import Control
from engine.device import pick_device
from engine.errors import RunError
from engine.parallel import check_processes
from engine.results import run_rows
from engine.runs import Run, RunReader, RunStore
from engine.status import LIVE
from engine.transfer_job import TransferJob
from lreg_tui import launch, present
from lreg_tui.cli import output, results, several
from lreg_tui.cli.follow import Follower, end_event, print_quietly
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    PresetReference,
    RunOrJobReference,
    RunsDir,
    Sets,
    find_run,
    whole_number,
)

Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps. Default: auto.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; the run outlives this terminal.")]
Processes = Annotated[
    str | None,
    typer.Option(
        "--nproc",
        metavar="N",
        help="Processes of this machine that share the meta-batch, a GPU each where there are some; 0: make the run's "
        "folder only. Default: 1; of resume: as many as before.",
    ),
]
ANSWER_LIMIT_S = 60.0  # how long pause and continue wait for the unit of work at hand


def run(
    preset: PresetReference,
    sets: Sets = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the run is called. Default: the preset's name.")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Meta-seed. Default: the preset's.")] = None,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    nproc: Processes = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Meta-train a preset.

    Ctrl-C finishes the truncation, writes a checkpoint and exits with 130; `lreg resume` goes on from there. On several
    machines: make the run with --nproc 0, then start `torchrun ... -m engine.worker RUN_PATH` on each.
    """
    from engine.preset import load_preset

    meta_seed = None if seed is None else whole_number("--seed", seed, 0)
    checked = load_preset(preset, sets or ())
    changes = {key: value for key, value in (("name", name), ("seed", meta_seed)) if value is not None}
    if changes:
        checked = checked.with_values(**changes)
    processes = 1 if nproc is None else whole_number("--nproc", nproc, 0)
    check_processes(checked, processes)
    store = RunStore(runs_dir)
    store.parent_of(checked)
    device = device or "auto"
    if not detach and processes:
        worker.check_inputs(checked.tasks, device, data_dir)
    elif device not in ("auto", "cpu"):
        pick_device(device)  # imports torch, which `--detach` otherwise leaves to the worker
    created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir)
    _start(created, processes=processes, detach=detach, as_json=as_json)


def resume(
    reference: RunOrJobReference,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    nproc: Processes = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, failed or crashed, from its last checkpoint.

    Of a transfer evaluation, what is left is measured; of a study, what is left is done, and what failed tried again.
    """
    reader = find_run(reference, runs_dir)
    status = reader.status()
    if status.state == "finished":
        raise RunError(f"run {reader.id} is finished: nothing to resume")
    if status.state in LIVE:
        raise RunError(
            f"run {reader.id} is {status.state} (process {status.pid} on host {status.host}): nothing to resume"
        )
    if device is not None:
        pick_device(device)
    if nproc is not None and (reader.is_transfer or reader.is_study):
        raise RunError(f"--nproc: {reader.id} is no run; several processes can share nothing else")
    if reader.is_study:
        from lreg_tui.cli import study

        study.resume(reader, device=device, detach=detach, as_json=as_json, data_dir=data_dir)
        return
    if reader.is_transfer:
        from lreg_tui.cli import transfer

        transfer.do(TransferJob(reader.path), detach=detach, as_json=as_json, device=device, data_dir=data_dir)
        return
    preset = reader.preset()  # a damaged one is found before anything starts
    before = max(1, min(status.processes, preset["meta"]["meta_batch"]))
    processes = before if nproc is None else whole_number("--nproc", nproc, 1)
    check_processes(preset, processes)
    _start(Run(reader.path), processes=processes, detach=detach, as_json=as_json, device=device, data_dir=data_dir)


def _start(
    started: Run,
    *,
    processes: int,
    detach: bool,
    as_json: bool,
    device: str | None = None,
    data_dir: Path | None = None,
) -> None:
    reader = RunReader(started.path)
    if processes == 0:
        several.leave_to_torchrun(started, as_json)
        return
    if detach or processes > 1:
        try:
            child = launch.start_detached(reader, device=device, data_dir=data_dir, processes=processes)
        except KeyboardInterrupt:
            output.say(f"run {reader.id} may go on without you; see it with: lreg watch {reader.id}")
            raise
        if not detach:
            raise typer.Exit(several.follow(child, reader, as_json))
        if as_json:
            output.emit({"run": reader.id, "path": str(reader.path)})
        else:
            print(present.clean(reader.id))
            output.say(f"started; watch it with: lreg watch {reader.id}")
        return
    raise typer.Exit(_in_the_foreground(started, reader, as_json, device, data_dir))


def _in_the_foreground(
    started: Run, reader: RunReader, as_json: bool, device: str | None, data_dir: Path | None
) -> int:
    """Meta-train in this process, with the display in a thread beside it. Returns the exit code."""
    if as_json:
        output.emit({"event": "run", "id": reader.id, "path": str(reader.path)})
        output.say(f"run {reader.id}")
    with Control().listening() as control:
        before = time.time() if reader.checkpoints() else 0.0  # what a resumed run told before is not told again
        follower = Follower(reader, as_json=as_json, since=before, notice=lambda: note_stopping(control), is_ours=True)
        follower.start()
        try:
            state = worker.work(started, device=device, data_dir=data_dir, control=control)
        except KeyboardInterrupt:
            state = "stopped"
        finally:
            follower.finish()
            print_quietly(lambda: summarize(reader, as_json, reason_follows=True))
    return 0 if state == "finished" else worker.INTERRUPTED


def note_stopping(control: Control) -> str:
    return "stopping after this truncation; Ctrl-C again aborts at once" if control.stop else ""


def summarize(reader: RunReader, as_json: bool, *, reason_follows: bool = False) -> None:
    """The last words on a run: its result, its id, and what can be done next.

    With `reason_follows` a failure's reason is left to the error line that this process ends with.
    """
    status = reader.status()
    if as_json:
        if status.state == "finished":
            output.emit({"event": "result", "rows": run_rows(reader)})
        output.emit(end_event(status, reader))
        return
    console = output.console()
    if status.state == "finished" and (table := results.table(reader, console)) is not None:
        console.print(table)
    console.print(present.text(f"{status.state}: {reader.id}"), soft_wrap=True)
    silent = (*LIVE, "crashed", *(["failed"] if reason_follows else []))  # a crashed one's last words are out of date
    if status.message and status.state not in silent:
        console.print(present.text(status.message))
    console.print(present.text(str(reader.path), "dim"), soft_wrap=True)
    if status.state == "finished" and reader.is_transfer and (seen := results.comparison_of(reader)):
        console.print(present.text(f"its results: {seen}"), soft_wrap=True)
    if status.state in ("stopped", "crashed"):
        console.print(present.text(f"go on with: lreg resume {reader.id}"), soft_wrap=True)


def stop(
    reference: RunOrJobReference,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the run has stopped.")] = True,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Finish the truncation, write a checkpoint, and end the run's process.

    A transfer evaluation keeps what it has measured; a study stops all its runs. `lreg resume` goes on with each.
    """
    reader = find_run(reference, runs_dir)
    launch.request(reader, signal.SIGTERM, "stop")
    if wait:
        launch.wait_for(reader, ())
    _report(reader, as_json, "" if wait else "stopping")


def pause(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Let a run rest after this truncation; its process stays, with its memory."""
    reader = find_run(reference, runs_dir)
    _ask(reader, signal.SIGUSR1, "pause", "paused", as_json)


def continue_(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """End a pause."""
    reader = find_run(reference, runs_dir)
    _ask(reader, signal.SIGUSR2, "continue", "running", as_json)


def _ask(reader: RunReader, number: signal.Signals, purpose: str, wanted: str, as_json: bool) -> None:
    launch.request(reader, number, purpose)
    status = launch.wait_for(reader, (wanted,), ANSWER_LIMIT_S)
    when = "soon" if reader.is_transfer else "after this truncation"
    late = f"asked to {purpose}; it will {when}" if status.state not in (wanted, "finished") else ""
    _report(reader, as_json, late if status.state in LIVE else "")


def _report(reader: RunReader, as_json: bool, note: str) -> None:
    status = reader.status()
    if as_json:
        output.emit({"run": reader.id, "state": status.state, "step": status.step, "total": status.total})
    else:
        at = f" at {present.unit_of(reader)} {status.step}/{status.total}" if status.total else ""
        print(present.clean(f"{reader.id}: {note or status.state}{at}"))
