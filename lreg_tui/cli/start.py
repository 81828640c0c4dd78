"""Start runs, and go on with them: run, resume."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from engine import worker
from engine.base.control import Control
from engine.base.errors import RunError
from engine.base.status import LIVE, Status
from engine.distributed.parallel import check_processes
from engine.runs.kinds import STUDY, TRANSFER
from engine.runs.provenance import plugin_remark
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.cli import output, several, study, transfer
from lreg_tui.cli.follow import Follower, print_quietly
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    Device,
    Plugins,
    PresetReference,
    RunOrJobReference,
    RunsDir,
    Sets,
    find_run,
    whole_number,
)
from lreg_tui.cli.summary import note_deaf, note_stopping, summarize
from lreg_tui.system import launch

Processes = Annotated[
    str | None,
    typer.Option(
        "--nproc",
        metavar="N",
        help="Processes of this machine that share the meta-batch, a GPU each where there are some; 0: make the run's "
        "folder only. Default: 1; of resume: as many as before.",
    ),
]


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
    plugin: Plugins = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Meta-train a preset.

    Ctrl-C finishes the truncation, writes a checkpoint and exits with 130; `lreg resume` goes on from there. On several
    machines: make the run with --nproc 0, then start `torchrun ... -m engine.worker RUN_PATH` on each.
    """
    from engine.presets.preset import load_preset

    meta_seed = None if seed is None else whole_number("--seed", seed, 0)
    checked = load_preset(preset, sets or ())
    changes = {key: value for key, value in (("name", name), ("seed", meta_seed)) if value is not None}
    if changes:
        checked = checked.with_values(**changes)
    processes = 1 if nproc is None else whole_number("--nproc", nproc, 0)
    check_processes(checked, processes)
    store = RunStore(runs_dir)
    device = device or "auto"
    start = parent.path if (parent := store.parent_of(checked)) else None
    tasks = checked.tasks if processes else ()  # without processes it is meant for other machines
    worker.check_inputs(tasks, device, data_dir, optimizer=checked["optimizer"], start=start)
    control = Control()
    with control.listening() if processes == 1 and not detach else nullcontext():  # from here on there is a run to stop
        created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir)
        _start(created, processes=processes, detach=detach, as_json=as_json, data_dir=data_dir, control=control)


def resume(
    reference: RunOrJobReference,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    nproc: Processes = None,
    plugin: Plugins = None,
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
    if remark := plugin_remark(reader.facts):
        output.say(f"run {reader.id}: {remark}")
    if data := reader.other_data(data_dir):
        output.say(data)
    kind, runner = reader.kind, worker.runner_of(reader)
    if nproc is not None and "share" not in kind.actions:
        raise RunError(f"--nproc: {reader.id} is no run; several processes can share nothing else")
    if kind is STUDY:
        study.resume(reader, device=device, detach=detach, as_json=as_json, data_dir=data_dir)
        return
    processes = _processes(reader, status, nproc) if "share" in kind.actions else 1
    worker.check_inputs(runner.tasks(reader), device or reader.device, data_dir)
    if kind is TRANSFER:
        transfer.do(Run(reader.path), detach=detach, as_json=as_json, device=device, data_dir=data_dir)
        return
    _start(Run(reader.path), processes=processes, detach=detach, as_json=as_json, device=device, data_dir=data_dir)


def _processes(reader: RunReader, status: Status, nproc: str | None) -> int:
    """How many processes go on with a run: as many as are asked for, else as before."""
    preset = reader.preset()  # a damaged one is found before anything starts
    cores = os.cpu_count() or 1  # a stranger's run may speak of any number
    before = max(1, min(status.processes, preset["meta"]["meta_batch"], cores))
    processes = before if nproc is None else whole_number("--nproc", nproc, 1)
    check_processes(preset, processes)
    return processes


def _start(
    started: Run,
    *,
    processes: int,
    detach: bool,
    as_json: bool,
    device: str | None = None,
    data_dir: Path | None = None,
    control: Control | None = None,
) -> None:
    reader = RunReader(started.path)
    if processes == 0:
        several.leave_to_torchrun(started, as_json, data_dir)
        return
    if detach or processes > 1:
        try:
            child = launch.start_detached(reader, device=device, data_dir=data_dir, processes=processes)
        except KeyboardInterrupt:
            output.say(f"run {reader.id} may go on without you; see it with: lreg watch {reader.id}")
            raise
        if not detach:
            raise typer.Exit(several.follow(child, reader, as_json))
        output.tell_started("run", reader, as_json)
        return
    raise typer.Exit(_in_the_foreground(started, reader, as_json, device, data_dir, control or Control()))


def _in_the_foreground(
    started: Run, reader: RunReader, as_json: bool, device: str | None, data_dir: Path | None, control: Control
) -> int:
    """Meta-train in this process, with the display in a thread beside it. Returns the exit code."""
    if as_json:
        output.emit({"event": "run", "id": reader.id, "path": str(reader.path)})
        output.say(f"run {reader.id}")
    note_deaf(control)
    with control.listening():
        before = time.time() if reader.checkpoints() else 0.0  # what a resumed run told before is not told again
        follower = Follower(reader, as_json=as_json, since=before, notice=lambda: note_stopping(control), is_ours=True)
        follower.start()
        has_failed = True
        try:
            state, has_failed = worker.work(started, device=device, data_dir=data_dir, control=control), False
        except KeyboardInterrupt:
            state, has_failed = "stopped", False
        finally:
            follower.finish()
            print_quietly(lambda: summarize(reader, as_json, reason_follows=True, has_failed=has_failed))
    return 0 if state == "finished" else worker.INTERRUPTED
