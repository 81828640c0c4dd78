"""Worker: the process that does a job of whatever kind. It opens a run, listens to signals, turns errors into states.

`python -m engine.worker RUN_PATH` is the detached form, and torchrun starts several of them for one run; `lreg run`
calls `work` in its own process. torch is imported only after the signal handlers are in place, because that takes
seconds.
"""

from __future__ import annotations

from engine.base import interrupts

if __name__ == "__main__":
    interrupts.hold()  # what follows takes a while

import argparse
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from engine.base.arguments import kind, named, refusal
from engine.base.arguments import path as path_text
from engine.base.control import Control
from engine.base.device import pick_device, prepare_process
from engine.base.errors import LregError, RunError, TrainingError
from engine.base.settings import show
from engine.base.status import EXIT_CODES, INTERRUPTED
from engine.distributed import parallel
from engine.distributed.parallel import PeerLost, ReadOnlyRun
from engine.export.loggers import logged
from engine.jobs.job_runner import JobRunner, check_inputs
from engine.jobs.meta_training_job import MetaTrainingJob
from engine.jobs.transfer_job import TransferJob
from engine.presets.preset import Preset, load_preset
from engine.runs import machine_log
from engine.runs.kinds import JobKind
from engine.runs.provenance import plugin_remark
from engine.runs.store import Run, RunReader, RunStore
from engine.study.schedule.loop import StudyJob

RUNNERS: dict[JobKind, type[JobRunner]] = {runner.kind: runner for runner in (MetaTrainingJob, TransferJob, StudyJob)}


def runner_of(reader: RunReader) -> type[JobRunner]:
    """What does a job. Raises RunError for one of a kind that this version does not know."""
    if (runner := RUNNERS.get(reader.kind)) is None:
        raise RunError(f"{reader.id}: {reader.kind.words}")
    return runner


def work(
    run: Run,
    *,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    control: Control | None = None,
    make_runner: Callable[..., JobRunner] | None = None,
) -> str:
    """Do a job to its end, from where it was left. Returns its state: finished or stopped; of a study failed, too.

    `make_runner`: makes what does it, of the run, the signals, the device and the data folder; else it is the runner of
    its kind.

    Device and data folder default to those noted in the run. Every error is noted in the run before it is raised:
    LregErrors and full disks as one line, anything else with its traceback in the log.
    """
    control = control or Control()
    runner: JobRunner | None = None
    run.control = control
    with run, machine_log.sampled(run), logged(run):
        try:
            run.set_status(controllable=control.listens, message="starting", processes=parallel.size())
            if control.remark:
                run.log(control.remark)
            runner = (make_runner or RUNNERS[run.kind])(run, control, device, data_dir)
            runner.log_start()
            state = runner.do()
            control.aborted = True  # too late for that: nothing may disturb the last words
        except KeyboardInterrupt:
            _end(run, f"aborted; {run.kind.preserved} stays", "stopped")
            raise
        except Exception as error:
            control.aborted = True
            for_user = _for_user(error, run)
            if for_user is None:
                run.log(traceback.format_exc())
            message = str(for_user or f"{type(error).__name__}: {error}")
            if isinstance(error, PeerLost) or (for_user is None and parallel.may_restart()):
                _end(run, message)
            else:
                _end(run, message, "failed")
                if runner is not None:
                    runner.team.explain(message)
            if for_user is None or for_user is error:
                raise
            raise for_user from error
        _end(run, runner.remark, state)
    return state


_OUT_OF_MEMORY = re.compile("OutOfMemoryError|can't allocate memory")  # torch's, on CUDA and on the CPU


def _for_user(error: Exception, run: Run) -> LregError | None:
    """The error as one for the user, or None if it is a bug of ours."""
    if isinstance(error, OSError):
        return run.lost(error)
    if isinstance(error, LregError):
        return run.lost() if run.look_there() else error  # it may be of a file that was deleted with the rest
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
        reason = (str(error).splitlines() or ["out of memory"])[0].partition(". ")[0]
        return TrainingError(f"{reason}; lower {run.kind.memory_settings} or task.batch_size, or take another device")
    return None


def _end(run: Run, message: str, state: str = "") -> None:
    """Note how a run has ended. Without a `state` another process may go on: readers see that this one is gone."""
    if run.is_gone:
        return
    line = " / ".join(message.splitlines())
    run.log(f"{state or 'broken off'} at step {run.status.step}" + (f": {line}" if line else ""))
    with contextlib.suppress(OSError):  # on a full disk readers see that the process is gone
        run.set_status(message=line, eta_s=None, state=state or run.status.state)


def _outcome(path: Path) -> int | None:
    """The exit code of a process that torchrun starts anew for a run that has ended in the meantime."""
    state = RunReader(path).recorded_status().state
    return {"finished": 0, "stopped": 0, "failed": 1}.get(state) if parallel.restart_count() else None


@named
def train(
    preset: Preset | str | os.PathLike[str],
    runs_dir: str | os.PathLike[str] = "runs",
    device: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
) -> RunReader:
    """Meta-train a preset (or the one of that name or path) in this process, and return the finished run. Blocking.

    Ctrl-C (in the main thread) finishes the truncation, checkpoints, and then raises KeyboardInterrupt; `lreg stop`
    from another terminal does the same. Raises LregError before a run is made where an argument does not fit.
    """
    preset = preset if isinstance(preset, Preset) else load_preset(path_text("preset", preset))
    runs_dir = _folder("runs_dir", runs_dir)
    data_dir = None if data_dir is None else _folder("data_dir", data_dir)
    device = str(device) if type(device).__name__ == "device" else device  # torch's own
    if not isinstance(device, str):
        raise refusal("device", "a text: auto, cpu, cuda, cuda:N, mps", kind(device))
    pick_device(device, "device")
    check_inputs(preset.tasks, device, Path(data_dir) if data_dir is not None else None)
    run = RunStore(runs_dir).create(preset, argv=["engine.train"], device=device, data_dir=data_dir)
    import torch

    threads = torch.get_num_threads()
    try:
        with Control().listening() as control:
            state = work(run, data_dir=data_dir, control=control)
    finally:
        torch.set_num_threads(threads)  # a preset may have its own number, which is not the caller's
    if state == "stopped":
        raise KeyboardInterrupt(f"run {run.id} was stopped; `lreg resume {run.id}` goes on")
    return RunReader(run.path)


def _folder(name: str, value: str | os.PathLike[str]) -> str:
    text = path_text(name, value)
    if "\0" in text:
        raise refusal(name, "a path without null characters", show(text))
    return text


def _open(path: Path) -> Run:
    """The folder for its one writer; for a process that does not hold it, one that writes nothing.

    Raises RunError for a job that several processes cannot share.
    """
    if parallel.size() > 1 and "share" not in RunReader(path).kind.actions:
        raise RunError(f"{path}: no run; several processes can share nothing else")
    return ReadOnlyRun(path) if parallel.rank() else Run(path)


def main(arguments: list[str] | None = None, make_runner: Callable[..., JobRunner] | None = None) -> int:
    """The detached worker. Returns the exit code."""
    interrupts.hold()
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description="Do a job whose folder exists.")
    parser.add_argument("run_path", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args(arguments)
    prepare_process()
    if (outcome := _outcome(options.run_path)) is not None:
        return outcome
    with Control(may_abort=not parallel.launched()).listening() as control:
        try:
            state = work(
                _open(options.run_path),
                device=options.device,
                data_dir=options.data_dir,
                control=control,
                make_runner=make_runner,
            )
        except KeyboardInterrupt:
            return INTERRUPTED
        except LregError as error:
            print(f"error: {error}", file=sys.stderr)
            if remark := plugin_remark(RunReader(options.run_path).facts):
                print(remark, file=sys.stderr)
            return error.exit_code
        except Exception as error:
            print(f"error: {type(error).__name__}: {error} (its traceback is in the log)", file=sys.stderr)
            return 1
    return 0 if parallel.launched() and state == "stopped" else EXIT_CODES[state]  # else torchrun starts it again


if __name__ == "__main__":
    sys.exit(main())
