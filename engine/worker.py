"""Worker: the process that meta-trains. It opens a run, listens to signals, checkpoints, and turns errors into states.

`python -m engine.worker RUN_PATH` is the detached form; `lreg run` calls `work` in its own process. torch is imported
only after the signal handlers are in place, because that takes seconds.

Signals: SIGINT, SIGTERM, SIGHUP finish the unit of work at hand, checkpoint and stop (a second SIGINT aborts at once);
SIGUSR1 pauses, SIGUSR2 continues.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import LregError, RunError, TrainingError
from engine.runs import Run, RunReader, RunStore, disk_error

if TYPE_CHECKING:
    import torch

    from engine.preset import Preset

INTERRUPTED = 130  # the exit code after a checkpoint
PAUSE_POLL_S = 0.1


class Trainer(Protocol):
    """What the worker drives: engine.meta.MetaTrainer."""

    improved: bool

    @property
    def step(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    def advance(self) -> list[dict[str, Any]]: ...
    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]: ...
    def load_state_dict(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None: ...
    def frozen_state(self, which: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]: ...
    def result(self, on_progress: Callable[[str], None]) -> list[dict[str, Any]]: ...


TrainerFactory = Callable[..., Any]


class Stopped(Exception):
    """The run was asked to stop while it was measuring its result."""


class Control:
    """What the signals have asked for. Handlers only set flags; the loop looks at them between two units of work."""

    def __init__(self) -> None:
        self.stop = False
        self.aborted = False
        self.paused = False
        self.listens = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Control]:
        """Handle the signals inside this block. Only the main thread can; elsewhere nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        stopping = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: a closed terminal must not matter
            stopping.append(signal.SIGHUP)
        handlers = {**dict.fromkeys(stopping, self._stop), signal.SIGUSR1: self._pause, signal.SIGUSR2: self._continue}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self.listens = True
        try:
            yield self
        finally:
            self.listens = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop and number == signal.SIGINT and not self.aborted:
            self.aborted = True  # once: the third must not disturb the last words
            raise KeyboardInterrupt
        self.stop = True

    def _pause(self, number: int, frame: FrameType | None) -> None:
        self.paused = True

    def _continue(self, number: int, frame: FrameType | None) -> None:
        self.paused = False


def wait_politely() -> None:
    """Let torch's idle CPU threads sleep instead of spin. To be called before torch is imported.

    Where other processes want the cores too, spinning makes small operations ten to fifty times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pick_device(text: str) -> torch.device:
    """The device meant by auto, cpu, cuda, cuda:N or mps. Raises LregError when it is not there."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", text):
        raise LregError(f"--device: found {text!r}; allowed: auto, cpu, cuda, cuda:N, mps")
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    index = int(text.partition(":")[2] or 0)
    if text == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if (text.startswith("cuda") and index >= gpus) or (text == "mps" and not has_mps):
        there = ["cpu", *(f"cuda:{number}" for number in range(gpus)), *(["mps"] if has_mps else [])]
        raise LregError(f"--device: {text} is not on this machine; there is: {', '.join(there)}")
    return torch.device(text)


def check_inputs(preset: Preset, device: str, data_dir: Path | None) -> None:
    """Find out before a run is created that its device or its data is missing. Imports torch and reads the data."""
    where = pick_device(device)
    from engine.tasks import Task

    for values in preset.tasks:
        Task(values, data_dir=data_dir, device=where)


def work(
    run: Run,
    *,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    control: Control | None = None,
    trainer_factory: TrainerFactory | None = None,
) -> str:
    """Meta-train a run to its end, from its last checkpoint if it has one. Returns its state: finished or stopped.

    Device and data folder default to those noted in the run. Every error is noted in the run before it is raised:
    LregErrors and full disks as one line, anything else with its traceback in the log.
    """
    control = control or Control()
    with run:
        run.set_status(controllable=control.listens, message="starting")
        try:
            state = _Work(run, control, device, data_dir, trainer_factory).do()
        except KeyboardInterrupt:
            _end(run, "stopped", "aborted; the last checkpoint stays")
            raise
        except Exception as error:
            known = _known(error)
            if known is None:
                run.log(traceback.format_exc())
            _end(run, "failed", str(known or f"{type(error).__name__}: {error}"))
            if known is None or known is error:
                raise
            raise known from error
        _end(run, state, "" if state == "finished" else f"stopped at step {run.status.step}")
    return state


def _known(error: Exception) -> LregError | None:
    """The error as one for the user, or None if it is a bug of ours."""
    if isinstance(error, LregError):
        return error
    if isinstance(error, OSError):
        return disk_error(error)
    if type(error).__name__ == "OutOfMemoryError":
        reason = str(error).partition(". ")[0]
        return TrainingError(f"{reason}; lower meta.meta_batch or meta.truncation, or take another device")
    return None


def _end(run: Run, state: str, message: str) -> None:
    line = " / ".join(message.splitlines())
    run.log(f"{state}: {line}" if line else state)
    with contextlib.suppress(OSError):  # on a full disk readers see that the process is gone
        run.set_status(state=state, message=line, eta_s=None)


class _Work:
    """One process's share of a run."""

    def __init__(
        self,
        run: Run,
        control: Control,
        device: str | None,
        data_dir: str | os.PathLike[str] | None,
        trainer_factory: TrainerFactory | None,
    ) -> None:
        facts = RunReader(run.path).facts
        self.run = run
        self.control = control
        self.device = device or str(facts.get("device") or "auto")
        data = data_dir or facts.get("data_dir")
        self.data_dir = Path(data) if data else None
        self.trainer_factory = trainer_factory

    def do(self) -> str:
        self.run.log(f"process {os.getpid()}: {' '.join(sys.argv)}")
        trainer = self._trainer()
        self._start(trainer)
        self.run.set_status(message="")
        self.began, self.first_step = time.monotonic(), trainer.step
        saved = time.monotonic()
        while not trainer.finished:
            self._wait_while_paused()
            if self.control.stop:
                self._save(trainer)
                return "stopped"
            self.run.append(trainer.advance())
            self.run.progress(trainer.step, trainer.total, self._eta(trainer))
            if trainer.improved:
                self._save_frozen(trainer, "best")
                self.run.log(f"step {trainer.step}: the best so far")
            if time.monotonic() - saved >= self.checkpoint_every:
                self._save(trainer)
                saved = time.monotonic()
        self._save(trainer)
        return self._measure(trainer)

    def _trainer(self) -> Trainer:
        """Build the trainer. Here torch is imported, and first of all: the preset's check is cheaper after it."""
        import torch

        from engine import checkpoint

        preset = RunReader(self.run.path).preset()
        if preset["threads"]:
            torch.set_num_threads(preset["threads"])
        device = pick_device(self.device)
        self.checkpoint_every = preset["meta"]["checkpoint_every"]
        self.run.log(f"device {device}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
        init_phi = None
        if not checkpoint.exists(self.run.checkpoints, "last"):
            init_phi = _initial_phi(RunStore(self.run.path.parent).parent_of(preset))
        if self.trainer_factory is None:
            from engine.meta import MetaTrainer

            self.trainer_factory = MetaTrainer
        trainer: Trainer = self.trainer_factory(preset, device=device, data_dir=self.data_dir, init_phi=init_phi)
        return trainer

    def _start(self, trainer: Trainer) -> None:
        """Go back to the last checkpoint, with the metrics as they were then; or write the first one."""
        from engine import checkpoint

        if checkpoint.exists(self.run.checkpoints, "last"):
            tensors, values = checkpoint.load(self.run.checkpoints, "last")
            try:
                trainer.load_state_dict(tensors, values["trainer"])
                size = int(values["metrics_size"])
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                where = checkpoint.path_of(self.run.checkpoints, "last")
                raise RunError(f"{where}: does not fit this version or preset ({_line(error)})") from error
            self.run.truncate_metrics(size)
            self.run.log(f"resumed at step {trainer.step}")
        else:
            self.run.truncate_metrics(0)
            self._save_frozen(trainer, "initial")
            self._save(trainer)
        self.run.progress(trainer.step, trainer.total, None)

    def _save(self, trainer: Trainer) -> None:
        """Write the checkpoint `last`, which notes how long metrics.jsonl was."""
        from engine import checkpoint

        size = self.run.sync_metrics()
        tensors, values = trainer.state_dict()
        checkpoint.save(self.run.checkpoints, "last", tensors, {"trainer": values, "metrics_size": size})

    def _save_frozen(self, trainer: Trainer, which: str) -> None:
        from engine import checkpoint

        checkpoint.save(self.run.checkpoints, which, *trainer.frozen_state(which))

    def _measure(self, trainer: Trainer) -> str:
        """The final comparison. A stop leaves it to the next resume."""
        try:
            evaluations = trainer.result(self._on_progress)
        except Stopped:
            return "stopped"
        names: list[str] = []
        for evaluation in evaluations:
            owner = None if evaluation.get("run", "") is None else self.run.id  # baselines belong to no run
            name = f"result-{evaluation.get('label') or evaluation.get('optimizer')}"
            names.append(name)
            repeats = names.count(name)  # tasks that differ only in their settings
            self.run.write_transfer(f"{name}-{repeats}" if repeats > 1 else name, {**evaluation, "run": owner})
        return "finished"

    def _on_progress(self, text: str) -> None:
        self.run.set_status(message=text)
        self._wait_while_paused()
        if self.control.stop:
            raise Stopped

    def _wait_while_paused(self) -> None:
        if not self.control.paused or self.control.stop:
            return
        began, message = time.monotonic(), self.run.status.message
        self.run.set_status(state="paused", eta_s=None)
        self.run.log("paused")
        while self.control.paused and not self.control.stop:
            time.sleep(PAUSE_POLL_S)  # ends early for no signal, but its handler runs
        self.run.set_status(state="running", message=message)
        self.run.log("continued")
        if hasattr(self, "began"):
            self.began += time.monotonic() - began  # pauses are no work

    def _eta(self, trainer: Trainer) -> float | None:
        done = trainer.step - self.first_step
        if done <= 0:
            return None
        return max(0.0, (time.monotonic() - self.began) / done * (trainer.total - trainer.step))


def _initial_phi(parent: RunReader | None) -> Any:
    if parent is None:
        return None
    from engine.meta import load_frozen

    return load_frozen(parent.path)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def train(
    preset: Preset,
    runs_dir: str | os.PathLike[str] = "runs",
    device: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
) -> RunReader:
    """Meta-train a preset in this process, and return the finished run. Blocking.

    Ctrl-C (in the main thread) finishes the truncation, checkpoints, and then raises KeyboardInterrupt; `lreg stop`
    from another terminal does the same.
    """
    check_inputs(preset, device, Path(data_dir) if data_dir is not None else None)
    run = RunStore(runs_dir).create(preset, argv=["engine.train"], device=device, data_dir=data_dir)
    with Control().listening() as control:
        state = work(run, control=control)
    if state == "stopped":
        raise KeyboardInterrupt(f"run {run.id} was stopped; `lreg resume {run.id}` goes on")
    return RunReader(run.path)


def main(arguments: list[str] | None = None, trainer_factory: TrainerFactory | None = None) -> int:
    """The detached worker. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description="Meta-train a run that exists.")
    parser.add_argument("run_path", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args(arguments)
    wait_politely()
    with Control().listening() as control:
        try:
            run = Run(given.run_path)
            factory = trainer_factory
            state = work(run, device=given.device, data_dir=given.data_dir, control=control, trainer_factory=factory)
        except KeyboardInterrupt:
            return INTERRUPTED
        except LregError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except Exception:
            return 1  # its traceback is in the log
    return 0 if state == "finished" else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
