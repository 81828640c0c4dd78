"""What jobs of every kind share: a folder that is held, a device, obedience to the signals; what they need to start."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.base.control import Control, Stopped
from engine.base.device import pick_device
from engine.distributed.parallel import ALONE, device_here
from engine.runs.kinds import JobKind
from engine.runs.store import Run, RunReader

if TYPE_CHECKING:
    import torch

PAUSE_POLL_S = 0.1


class JobRunner:
    """A job in the hands of this process. There is a class for each kind, in `engine.worker.RUNNERS`."""

    kind: ClassVar[JobKind]

    def __init__(
        self, run: Run, control: Control, device: str | None = None, data_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """The device defaults to the one noted in the run; the data folder never does: the run may be a stranger's."""
        self.run = run
        self.control = control
        self.device = device or RunReader(run.path).device
        self.data_dir = Path(data_dir) if data_dir else None
        self.team = ALONE
        self.remark = ""  # what should be said of a finished run
        self.began = time.monotonic()

    @staticmethod
    def choices(reader: RunReader) -> dict[str, Any]:
        """What a job of this kind is to do, by key, for people. Raises LregError where that cannot be read."""
        raise NotImplementedError

    @staticmethod
    def tasks(reader: RunReader) -> Sequence[Mapping[str, Any]]:
        """The tables of the tasks whose data it needs. Raises LregError where they cannot be read."""
        raise NotImplementedError

    def do(self) -> str:
        """Bring the job to its end, or as far as the signals allow. Returns finished or stopped."""
        raise NotImplementedError

    def log_start(self) -> None:
        """Say which process does the job, and where its data lay before."""
        self.run.log(f"process {os.getpid()}: {' '.join(sys.argv)}")
        if noted := RunReader(self.run.path).other_data(self.data_dir):
            self.run.log(noted)

    def _eta(self, done: float, left: float) -> float | None:
        """Seconds for what is left, at the pace of what this process has done; None before it has done anything."""
        return (time.monotonic() - self.began) / done * max(0.0, left) if done > 0 else None

    def _pick_device(self) -> torch.device:
        """The device, noted in the run. Imports torch."""
        import torch

        from engine import kernels
        from engine.kernels import trial
        from engine.meta_training import recording

        device = pick_device(device_here(self.device))
        self.run.set_status(device=str(device))
        self.run.log(f"device {device}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
        self.run.log(f"kernels {kernels.describe(device)}{recording.describe(device)}")
        trial.tell(self.run.log)
        return device

    def _tick(self) -> None:
        """Obey the signals. Called between pieces of work, and in evaluations many times a second."""
        self.run.check_there()
        self._wait_while_paused()
        if self.team.stopping(self.control.stop):
            raise Stopped

    def _wait_while_paused(self) -> None:
        if not self.control.paused or self.control.stop:
            return
        began, message = time.monotonic(), self.run.status.message
        self.run.set_status(state="paused", eta_s=None)
        self.run.log("paused")
        while self.control.paused and not self.control.stop:
            self.run.check_there()
            time.sleep(PAUSE_POLL_S)  # ends early for no signal, but its handler runs
        self.run.set_status(state="running", message=message)
        self.run.log("continued")
        self.began += time.monotonic() - began  # pauses are no work


def check_inputs(
    tasks: Iterable[Mapping[str, Any]],
    device: str,
    data_dir: Path | None,
    *,
    optimizer: Mapping[str, Any] | None = None,
    start: Path | None = None,
    option: str = "--device",
) -> None:
    """Find out before a run is created that its device or its data is missing. Imports torch and reads the data.

    `tasks`: checked [task] tables, also as JSON gives them back.

    `optimizer`: the [optimizer] table, whose learned optimizer is to train the tasks. `start`: the run whose learned
    optimizer it starts from, which is to fit that table. `option`: what names the device. Raises LregError.
    """
    where = pick_device(device, option)
    from engine import kernels
    from engine.kernels import build
    from engine.meta_training import recording
    from engine.presets.preset import from_mapping
    from engine.tasks.table import check_tasks

    for check_variable in (kernels.chosen, build.instruction_set, recording.way):
        check_variable()

    how: dict[str, Any] = {"data_dir": data_dir, "device": where}
    if optimizer is not None:
        from engine.optimizers.learned.base import from_table

        how["check"] = from_table(optimizer).check_task
    for values in tasks:
        check_tasks(from_mapping({"task": values}).tasks[0], **how)
    if optimizer is not None and start is not None:
        from engine.meta_training.meta_parameters import check_start
        from engine.runs.checkpoint import load_frozen

        check_start(optimizer, load_frozen(start))
