"""Start runs and steer them: run, resume, stop, pause, continue."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Annotated

import typer

from engine import worker
from engine.base.control import Control
from engine.base.errors import LregError, RunError, TrainingError
from engine.base.status import LIVE, Status
from engine.distributed import parallel
from engine.export import loggers
from engine.jobs import spawn
from engine.presets.preset import load_preset
from engine.runs.kinds import RUN, STUDY, TRANSFER
from engine.runs.provenance import plugin_remark
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.cli import output, study, transfer
from lreg_tui.cli.follow import Follower, FollowOptions, do_here, note_deaf, print_quietly, summarize, when_stopping
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    Device,
    LogTo,
    Plugins,
    PresetReference,
    RunOrJobReference,
    RunsDir,
    Sets,
    find_run,
    flag,
    number,
)
from lreg_tui.text import present

PROCESSES = (
    "Processes of this machine that share the meta-batch, a GPU each where there are some; 0: make the run's folder "
    "only. Default: 1; of resume: as many as before."
)


def run(
    preset: PresetReference,
    sets: Sets = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the run is called. Default: the preset's name.")
    ] = None,
    seed: Annotated[int | None, number("--seed", "N", "Meta-seed. Default: the preset's.", minimum=0)] = None,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    nproc: Annotated[int | None, number("--nproc", "N", PROCESSES, minimum=0)] = None,
    log_to: LogTo = None,
    plugin: Plugins = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Meta-train a preset.

    Ctrl-C finishes the truncation, writes a checkpoint and exits with 130; `lreg resume` goes on from there. On several
    machines: make the run with --nproc 0, then start `torchrun ... -m engine.worker RUN_PATH` on each.
    """
    checked = load_preset(preset, sets or ())
    changes = {key: value for key, value in (("name", name), ("seed", seed)) if value is not None}
    if changes:
        checked = checked.with_values(**changes)
    processes = 1 if nproc is None else nproc
    parallel.check_processes(checked, processes)
    store = RunStore(runs_dir)
    device = device or "auto"
    start = parent.path if (parent := store.parent_of(checked)) else None
    tasks = checked.tasks if processes else ()  # without processes it is meant for other machines
    worker.check_inputs(tasks, device, data_dir, optimizer=checked["optimizer"], start=start)
    control = Control()
    with control.listening() if processes == 1 and not detach else nullcontext():  # from here on there is a run to stop
        created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir, log_to=loggers.in_use())
        _start(created, processes, FollowOptions(None, data_dir, detach, as_json), control)


def resume(
    reference: RunOrJobReference,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    nproc: Annotated[int | None, number("--nproc", "N", PROCESSES, minimum=1)] = None,
    log_to: LogTo = None,
    plugin: Plugins = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, failed or crashed, from its last checkpoint.

    Of a transfer evaluation, what is left is measured; of a study, what is left is done, and what failed tried again.
    """
    reader, how = find_run(reference, runs_dir), FollowOptions(device, data_dir, detach, as_json)
    status = reader.status()
    if status.state == "finished":
        raise RunError(f"run {reader.id} is finished: nothing to resume")
    if status.state in LIVE:
        process = f"process {status.pid} on host {status.host}"
        raise RunError(f"run {reader.id} is {status.state} ({process}): nothing to resume")
    if remark := plugin_remark(reader.facts):
        output.say(f"run {reader.id}: {remark}")
    if data := reader.other_data(data_dir):
        output.say(data)
    kind, runner = reader.kind, worker.runner_of(reader)
    if (before := _logged_to(reader)) and not loggers.in_use():  # perhaps a stranger's: told, not obeyed
        subject = "the run was" if kind is RUN else "its runs were"
        output.say(f"{subject} logged to {present.clean(before)} before: --log-to goes on with that")
    if nproc is not None and "share" not in kind.actions:
        raise RunError(f"--nproc: {reader.id} is no run; several processes can share nothing else")
    if kind is STUDY:
        study.resume(reader, how)
        return
    processes = _processes(reader, status, nproc) if "share" in kind.actions else 1
    worker.check_inputs(runner.tasks(reader), device or reader.device, data_dir)
    if kind is TRANSFER:
        transfer.do(Run(reader.path), how)
    else:
        _start(Run(reader.path), processes, how)


def _logged_to(reader: RunReader) -> str:
    """What a run was logged to; of a study its command tells."""
    argv = reader.facts.get("argv")
    words = [word for each in argv for word in str(each).split("=", 1)] if isinstance(argv, list) else []
    named = [after for word, after in pairwise(words) if word == "--log-to"] if reader.kind is STUDY else []
    told = reader.facts.get("log_to") or named
    return ", ".join(map(str, told)) if isinstance(told, list) else str(told)


def _processes(reader: RunReader, status: Status, nproc: int | None) -> int:
    """How many processes go on with a run: as many as are asked for, else as before."""
    preset = reader.preset()  # a damaged one is found before anything starts
    cores = os.cpu_count() or 1  # a stranger's run may speak of any number
    processes = nproc or max(1, min(status.processes, preset["meta"]["meta_batch"], cores))
    parallel.check_processes(preset, processes)
    return processes


def _start(started: Run, processes: int, how: FollowOptions, control: Control | None = None) -> None:
    """Meta-train in this process, in the background, or with torchrun."""
    reader, control = RunReader(started.path), control or Control()
    if processes == 0:
        _leave_to_torchrun(started, how)
        return
    if processes == 1 and not how.detach:

        def work() -> str:
            return do_here(started, device=how.device, data_dir=how.data_dir, control=control)

        raise typer.Exit(_in_the_foreground(reader, how, control, work, is_ours=True))
    try:
        child = spawn.start_detached(reader, device=how.device, data_dir=how.data_dir, processes=processes)
    except KeyboardInterrupt:
        output.say(f"run {reader.id} may go on without you; see it with: lreg watch {reader.id}")
        raise
    if how.detach:
        output.tell_started("run", reader, how.as_json)
        return
    raise typer.Exit(_in_the_foreground(reader, how, control, lambda: _await(child, reader, control)))


def _in_the_foreground(
    reader: RunReader, how: FollowOptions, control: Control, work: Callable[[], str], *, is_ours: bool = False
) -> int:
    """Show a run while it is worked at, here or in processes that this one waits for. Returns the exit code.

    Ctrl-C asks the run to stop; a second one ends it at once.
    """
    if how.as_json:
        output.emit({"event": "run", "id": reader.id, "path": str(reader.path)})
        output.say(f"run {reader.id}")
    note_deaf(control)
    has_failed = True
    notice = when_stopping(control, "stopping after this truncation; Ctrl-C again aborts at once")
    with control.listening():
        since = time.time() if reader.checkpoints() else 0.0  # what a resumed run told before is not told again
        try:
            with Follower(reader, as_json=how.as_json, since=since, notice=notice, is_ours=is_ours):
                try:
                    state, has_failed = work(), False
                except KeyboardInterrupt:
                    state, has_failed = "stopped", False
        finally:
            print_quietly(lambda: summarize(reader, how.as_json, reason_follows=True, has_failed=has_failed))
    return 0 if state == "finished" else worker.INTERRUPTED


def _await(torchrun: subprocess.Popen[bytes], reader: RunReader, control: Control) -> str:
    """Wait until torchrun, which has a session of its own, has ended. Returns the run's state.

    Raises TrainingError where the run has failed.
    """
    stop_sent = False
    try:
        while torchrun.poll() is None:
            if control.stop and not stop_sent:
                stop_sent = True
                try:
                    spawn.request(reader, signal.SIGTERM, "stop")
                except LregError:  # its processes are just being started anew, or have ended
                    torchrun.terminate()
            time.sleep(spawn.POLL_S)
    except KeyboardInterrupt:
        parallel.end_at_once(torchrun.pid)
        torchrun.wait()
    reader.check_there()
    status = reader.status()
    if status.state in ("failed", "crashed") and not control.aborted:
        raise TrainingError(f"run {reader.id} has {status.state}: {present.clean(status.message)}")
    return status.state


def _leave_to_torchrun(created: Run, how: FollowOptions) -> None:
    """Make a run that waits for a torchrun of the user's."""
    with created:
        created.set_status(state="stopped", message="waiting for torchrun")
    if how.as_json:
        output.emit({"run": created.id, "path": str(created.path)})
        return
    print(present.clean(created.id))
    command = ["torchrun", "--nnodes", "NODES", "--nproc-per-node", "N", "--max-restarts", str(parallel.RESTARTS)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29400", "-m", "engine.worker", str(created.path)]
    command += ["--data-dir", str(how.data_dir.absolute())] if how.data_dir else []
    output.say("start it on each machine with: " + shlex.join(command))


ANSWER_LIMIT_S = 60.0  # how long pause and continue wait for the unit of work at hand


def stop(
    reference: RunOrJobReference,
    wait: Annotated[bool, flag("--wait/--no-wait", "Wait until the run has stopped.")] = True,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Finish the truncation, write a checkpoint, and end the run's process.

    A transfer evaluation keeps what it has measured; a study stops all its runs. `lreg resume` goes on with each.
    """
    reader = find_run(reference, runs_dir)
    spawn.request(reader, signal.SIGTERM, "stop")
    if wait:
        spawn.wait_for(reader, ())
    _report(reader, as_json, "" if wait else "stopping")


def pause(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Let a run rest after this truncation; its process stays, with its memory."""
    _ask(find_run(reference, runs_dir), signal.SIGUSR1, "pause", "paused", as_json)


def continue_(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """End a pause."""
    _ask(find_run(reference, runs_dir), signal.SIGUSR2, "continue", "running", as_json)


def _ask(reader: RunReader, number: signal.Signals, purpose: str, state: str, as_json: bool) -> None:
    spawn.request(reader, number, purpose)
    status = spawn.wait_for(reader, (state,), ANSWER_LIMIT_S)
    late = f"asked to {purpose}; it will soon" if status.state not in (state, "finished") else ""
    _report(reader, as_json, late if status.state in LIVE else "")


def _report(reader: RunReader, as_json: bool, note: str) -> None:
    reader.check_there()
    status = reader.status()
    if as_json:
        output.emit({"run": reader.id, "state": status.state, "step": status.step, "total": status.total})
    else:
        at = f" at {reader.kind.unit} {status.step}/{status.total}" if status.total else ""
        print(present.clean(f"{reader.id}: {note or status.state}{at}"))
