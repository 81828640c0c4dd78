"""What meta-training and transfer evaluation share: a run that is held, a device, and obedience to the signals."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.control import Control, Stopped
from engine.base.device import pick_device
from engine.distributed.parallel import ALONE, device_here
from engine.runs.store import Run, RunReader

if TYPE_CHECKING:
    import torch

PAUSE_POLL_S = 0.1


class JobRunner:
    """A run in the hands of this process. `do` brings it to finished or stopped."""

    def __init__(
        self, run: Run, control: Control, device: str | None = None, data_dir: str | os.PathLike[str] | None = None
    ) -> None:
        """The device defaults to the one noted in the run; the data folder never does: the run may be a stranger's."""
        facts = RunReader(run.path).facts
        self.run = run
        self.control = control
        self.device = device or str(facts.get("device") or "auto")
        self.data_dir = Path(data_dir) if data_dir else None
        self.team = ALONE
        self.remark = ""  # what should be said of a finished run
        self.began = time.monotonic()

    def do(self) -> str:
        raise NotImplementedError

    def _log_start(self) -> None:
        self.run.log(f"process {os.getpid()}: {' '.join(sys.argv)}")
        if noted := RunReader(self.run.path).other_data(self.data_dir):
            self.run.log(noted)

    def _pick_device(self) -> torch.device:
        """The device, noted in the run. Imports torch."""
        import torch

        from engine import kernels
        from engine.meta_training import recording

        device = pick_device(device_here(self.device))
        self.run.set_status(device=str(device))
        self.run.log(f"device {device}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
        is_recorded = recording.chosen(device) is not recording.run_truncation
        recorded = ", truncations recorded as CUDA graphs" if is_recorded else ""
        self.run.log(f"kernels {kernels.describe(device)}{recorded}")
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
