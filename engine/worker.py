"""Worker: the process that meta-trains, or evaluates. It opens a run, listens to signals, and turns errors into states.

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
from engine.base.device import pick_device, wait_politely
from engine.base.errors import LregError, TrainingError
from engine.base.settings import show
from engine.base.status import EXIT_CODES, INTERRUPTED
from engine.distributed import parallel
from engine.distributed.parallel import PeerLost
from engine.jobs.inputs import check_inputs
from engine.jobs.job_runner import JobRunner
from engine.jobs.meta_training_job import MetaTrainingJob, TrainerFactory
from engine.jobs.open_run import open_run
from engine.jobs.transfer_job import Listener, TransferJob, TransferLoop
from engine.presets.preset import Preset, load_preset
from engine.runs.provenance import plugin_remark
from engine.runs.store import Run, RunReader, RunStore
from engine.study.schedule.job import StudyJob
from engine.study.schedule.loop import StudyLoop

LoopFactory = Callable[[Run, Control, "str | os.PathLike[str] | None"], JobRunner]
"""Makes what is done with a run, of the run, the signals and the data folder."""


def work(
    run: Run,
    *,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    control: Control | None = None,
    trainer_factory: TrainerFactory | None = None,
    on_finished: Listener = lambda evaluation: None,
    make_loop: LoopFactory | None = None,
) -> str:
    """Meta-train a run to its end, from its last checkpoint if it has one. Returns its state: finished or stopped.

    A transfer job is done as far as its plan goes; `on_finished` is told of each of its evaluations. A study may also
    end as failed: some of its runs did. `make_loop`: what to do with the run in place of the usual.

    Device and data folder default to those noted in the run. Every error is noted in the run before it is raised:
    LregErrors and full disks as one line, anything else with its traceback in the log.
    """
    control = control or Control()
    loop: JobRunner | None = None
    with run:
        try:
            run.set_status(controllable=control.listens, message="starting", processes=parallel.size())
            if control.remark:
                run.log(control.remark)
            if make_loop is not None:
                loop = make_loop(run, control, data_dir)
            elif isinstance(run, StudyJob):
                loop = StudyLoop(run, control, data_dir)
            elif isinstance(run, TransferJob):
                loop = TransferLoop(run, control, device, data_dir, on_finished)
            else:
                loop = MetaTrainingJob(run, control, device, data_dir, trainer_factory)
            state = loop.do()
            control.aborted = True  # too late for that: nothing may disturb the last words
        except KeyboardInterrupt:
            _end(run, "stopped", f"aborted; {run.kept} stays")
            raise
        except Exception as error:
            control.aborted = True
            known = _known(error, run)
            if known is None:
                run.log(traceback.format_exc())
            message = str(known or f"{type(error).__name__}: {error}")
            if isinstance(error, PeerLost) or (known is None and parallel.may_restart()):
                _break_off(run, message)
            else:
                _end(run, "failed", message)
                if loop is not None:
                    loop.team.explain(message)
            if known is None or known is error:
                raise
            raise known from error
        _end(run, state, loop.remark)
    return state


_OUT_OF_MEMORY = re.compile("OutOfMemoryError|can't allocate memory")  # torch's, on CUDA and on the CPU


def _known(error: Exception, run: Run) -> LregError | None:
    """The error as one for the user, or None if it is a bug of ours."""
    if isinstance(error, OSError):
        return run.lost(error)
    if isinstance(error, LregError):
        return run.lost() if run.look_there() else error  # it may be of a file that was deleted with the rest
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
        reason = (str(error).splitlines() or ["out of memory"])[0].partition(". ")[0]
        large = "evaluation.examples" if isinstance(run, TransferJob) else "meta.meta_batch, meta.truncation"
        return TrainingError(f"{reason}; lower {large} or task.batch_size, or take another device")
    return None


def _end(run: Run, state: str, message: str) -> None:
    if run.is_gone:
        return
    line = " / ".join(message.splitlines())
    run.log(f"{state} at step {run.status.step}" + (f": {line}" if line else ""))
    with contextlib.suppress(OSError):  # on a full disk readers see that the process is gone
        run.set_status(state=state, message=line, eta_s=None)


def _break_off(run: Run, message: str) -> None:
    """The run may go on in another process: readers see that this one is gone."""
    if run.is_gone:
        return
    line = " / ".join(message.splitlines())
    run.log(f"broken off at step {run.status.step}: {line}")
    with contextlib.suppress(OSError):
        run.set_status(message=line, eta_s=None)


def _outcome(path: Path) -> int | None:
    """The exit code of a process that torchrun starts anew for a run that has ended in the meantime."""
    state = RunReader(path).recorded_status().state
    return {"finished": 0, "stopped": 0, "failed": 1}.get(state) if parallel.restarted() else None


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


def main(
    arguments: list[str] | None = None,
    trainer_factory: TrainerFactory | None = None,
    make_loop: LoopFactory | None = None,
) -> int:
    """The detached worker. Returns the exit code."""
    interrupts.hold()
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description="Meta-train a run that exists.")
    parser.add_argument("run_path", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args(arguments)
    wait_politely()
    if (outcome := _outcome(given.run_path)) is not None:
        return outcome
    with Control(may_abort=not parallel.launched()).listening() as control:
        try:
            run = open_run(given.run_path)
            state = work(
                run,
                device=given.device,
                data_dir=given.data_dir,
                control=control,
                trainer_factory=trainer_factory,
                make_loop=make_loop,
            )
        except KeyboardInterrupt:
            return INTERRUPTED
        except LregError as error:
            print(f"error: {error}", file=sys.stderr)
            if remark := plugin_remark(RunReader(given.run_path).facts):
                print(remark, file=sys.stderr)
            return error.exit_code
        except Exception as error:
            print(f"error: {type(error).__name__}: {error} (a bug; its traceback is in the log)", file=sys.stderr)
            return 1
    return 0 if parallel.launched() and state == "stopped" else EXIT_CODES[state]  # else torchrun starts it again


if __name__ == "__main__":
    sys.exit(main())
