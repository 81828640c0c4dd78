"""What a run's process takes of its machine over time: machine.jsonl, beside the metrics and apart from them.

Its records depend on the clock and the machine. Those of metrics.jsonl, on a CPU, do not: a run that was resumed has
the same ones bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator

from engine.base.files import open_to_append, open_to_read, write_atomic
from engine.base.machine import ProcessMeter, gpu_of, measure_gpus
from engine.base.status import as_figure
from engine.runs.kinds import RUN
from engine.runs.writer import Run

NAME = "machine.jsonl"
FIRST_AFTER_S, EVERY_S = 1.0, 10.0


@contextlib.contextmanager
def sampled(run: Run) -> Iterator[None]:
    """Look at this process now and then, while the block lasts: where it holds a run, which is not paused."""
    if run.kind is not RUN or not run.is_held:
        yield
        return
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(run, ended), name="machine", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join(EVERY_S)


def _sample(run: Run, ended: threading.Event) -> None:
    meter = ProcessMeter()
    pause = FIRST_AFTER_S
    while not ended.wait(pause):
        pause = EVERY_S
        if run.status.state == "running" and not run.is_gone:
            record = {"t": round(time.time(), 6), "step": run.status.step, **look(meter, run.status.device)}
            # where nothing can be written, the metrics will say so
            with contextlib.suppress(OSError), open_to_append(run.path / NAME) as file:
                file.write(f"{json.dumps(record)}\n".encode())


def look(meter: ProcessMeter, device: str) -> dict[str, float]:
    """What there is to say now, by metric; what the system does not tell is left out."""
    load = meter.look()
    values: dict[str, float | None] = {
        "process_cpu_percent": round(100 * load.cpu, 1),
        "process_memory_bytes": load.memory,
        "read_bytes_per_s": load.read_per_s,
        "write_bytes_per_s": load.written_per_s,
    }
    if gpu_index := gpu_of(device):
        for gpu in measure_gpus(gpu_index)[:1]:
            values |= {"gpu_percent": None if gpu.busy is None else round(100 * gpu.busy, 1)}
            values |= {"gpu_memory_bytes": gpu.memory_used, "gpu_temperature_c": gpu.temperature}
    return {name: round(value, 1) for name, value in values.items() if value is not None}


def truncate(run: Run, step: int) -> None:
    """Drop what was noted after a meta-step, to which the run goes back. The file is replaced, not cut."""
    path = run.path / NAME
    with contextlib.suppress(FileNotFoundError), open_to_read(path, run.path) as file:
        lines = file.read().splitlines(keepends=True)
        remaining = [line for line in lines if _step(line) <= step]
        if len(remaining) < len(lines):
            write_atomic(path, b"".join(remaining))


def _step(line: bytes) -> float:
    """The meta-step of a record; beyond all others for a torn one."""
    try:
        step = as_figure(json.loads(line).get("step"))
    except (ValueError, AttributeError, RecursionError):
        step = None
    return float("inf") if step is None or step != step else step
