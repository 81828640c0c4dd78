"""A run on several processes, as its terminal sees it: torchrun has a session of its own, and this one looks on."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from pathlib import Path

from engine import worker
from engine.base.control import Control
from engine.base.errors import LregError, TrainingError
from engine.distributed import parallel
from engine.runs.store import Run, RunReader
from lreg_tui.cli import output
from lreg_tui.cli.follow import Follower, print_quietly
from lreg_tui.cli.summary import note_stopping, summarize
from lreg_tui.system import launch
from lreg_tui.text import present


def follow(torchrun: subprocess.Popen[bytes], reader: RunReader, as_json: bool) -> int:
    """Show a run until torchrun has ended. Returns the exit code; raises TrainingError where the run failed.

    Ctrl-C asks the run to stop; a second one ends its processes at once.
    """
    if as_json:
        output.emit({"event": "run", "id": reader.id, "path": str(reader.path)})
        output.say(f"run {reader.id}")
    with Control().listening() as control:
        since = time.time() if reader.checkpoints() else 0.0
        follower = Follower(reader, as_json=as_json, since=since, notice=lambda: note_stopping(control))
        follower.start()
        try:
            _wait(torchrun, reader, control)
        except KeyboardInterrupt:
            parallel.end_at_once(torchrun.pid)
            torchrun.wait()
        finally:
            follower.finish()
            print_quietly(lambda: summarize(reader, as_json, reason_follows=True))
    reader.check_there()
    status = reader.status()
    if status.state in ("failed", "crashed") and not control.aborted:
        raise TrainingError(f"run {reader.id} has {status.state}: {present.clean(status.message)}")
    return 0 if status.state == "finished" else worker.INTERRUPTED


def _wait(torchrun: subprocess.Popen[bytes], reader: RunReader, control: Control) -> None:
    asked = False
    while torchrun.poll() is None:
        if control.stop and not asked:
            asked = True
            try:
                launch.request(reader, signal.SIGTERM, "stop")
            except LregError:  # its processes are just being started anew, or have ended
                torchrun.terminate()
        time.sleep(launch.POLL_S)


def leave_to_torchrun(created: Run, as_json: bool, data_dir: Path | None = None) -> None:
    """Make a run that waits for a torchrun of the user's."""
    with created:
        created.set_status(state="stopped", message="waiting for torchrun")
    if as_json:
        output.emit({"run": created.id, "path": str(created.path)})
        return
    print(present.clean(created.id))
    command = ["torchrun", "--nnodes", "NODES", "--nproc-per-node", "N", "--max-restarts", str(parallel.RESTARTS)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29400", "-m", "engine.worker", str(created.path)]
    command += ["--data-dir", str(data_dir.absolute())] if data_dir else []
    output.say("start it on each machine with: " + shlex.join(command))
