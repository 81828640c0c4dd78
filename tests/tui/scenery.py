"""A run store that is the same at every time, on every machine, for pictures of screens. Import it as `tui.scenery`."""

from __future__ import annotations

import json
import math
import os
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comparing import baseline, evaluation, mark
from tui.driving import change_json, make_job, make_run

from engine.base import machine
from engine.base.machine import Gpu, Load
from engine.runs.store import Run, RunStore
from lreg_tui.runs import filters
from lreg_tui.text import present

NOW = datetime(2026, 3, 14, 15, 0, tzinfo=timezone.utc).timestamp()
TOTAL = 300
MINUTE = 60.0
HOUR = 60 * MINUTE
LOAD = Load(0.37, 16, 21 * 2**30, 64 * 2**30, 400 * 2**30, 1000 * 2**30, (Gpu(9 * 2**30, 24 * 2**30, 0.82, 64.0),))
LOG = """\
2026-03-14T14:40:00Z device cuda:0, torch 2.11.0, 1 CPU threads
2026-03-14T14:41:12Z step 0: checkpoint best written
2026-03-14T14:48:31Z step 60: checkpoint best written
2026-03-14T14:53:09Z step 120: checkpoint best written
"""
LAST_WORDS = LOG + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"


def freeze(monkeypatch: pytest.MonkeyPatch, folder: Path) -> RunStore:
    """Stop the clock and the machine's figures, and go to an empty folder. Returns the store `runs` there."""
    clock = SimpleNamespace(time=lambda: NOW)
    monkeypatch.setattr(present, "time", clock)
    monkeypatch.setattr(filters, "time", clock, raising=False)
    monkeypatch.setattr(machine, "measure", lambda runs: LOAD)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(folder)
    store = RunStore("runs")
    store.root = Path("runs")  # as it is shown: the same wherever the folder is
    return store


def fill(root: Path) -> None:
    """Runs of every state, two of them with transfer evaluations, and a transfer job."""
    vanilla = _run(root, "vanilla", 26 * HOUR, tags=("paper",), optimizer={"kind": "dm"})
    sam = _run(root, "sam-0.05", 5 * HOUR, tags=("paper",), pinned=True, penalty={"sam": {"weight": 2.0}}, better=0.8)
    _run(root, "gsam-night", 3 * HOUR, state="stopped", step=210, penalty={"gsam": {"weight": 0.5}}, better=0.9)
    gam = {"gam": {"weight": 1.0}, "smooth": {"weight": 10.0}}
    _run(root, "gam-smooth", 90 * MINUTE, state="crashed", step=121, penalty=gam, log=LAST_WORDS)
    _run(root, "quickstart", 20 * MINUTE, state="running", step=180, eta_s=200.0, log=LOG, better=0.7)
    _run(root, "rnnprop-long", 2 * MINUTE, state="queued", step=0, optimizer={"kind": "rnnprop"})
    for made, factor in ((vanilla, 3.0), (sam, 1.5)):
        made.write_transfer("best", _evaluation(factor))
        made.write_transfer("sgd", baseline(_law(2.0), steps=(50, 100), seeds=range(5)))
    job = make_job(root, [vanilla, sam], state="running", step=7, total=18)
    change_json(job.path / "status.json", eta_s=340.0, heartbeat=NOW * 2)
    date(job.path, "20260314-145500-transfer-k2m7", 5 * MINUTE)


def _run(
    root: Path, name: str, age_s: float, step: int = TOTAL, better: float = 1.0, eta_s: float | None = None, **how: Any
) -> Run:
    records = [_record(at, better) for at in range(step)]
    made = make_run(root, name, step=step, total=TOTAL, records=records, **{"log": LOG, **how})
    change_json(made.path / "status.json", eta_s=eta_s, heartbeat=NOW * 2, device="cuda:0")  # never silent
    for number, kept in enumerate(("initial", "best", "last")):
        for suffix in ("safetensors", "json"):
            path = made.path / "checkpoint" / f"{kept}.{suffix}"
            path.write_text(json.dumps({"step": 60 * number}) if suffix == "json" else "x" * 20_000)
            os.utime(path, (NOW, NOW - age_s / (1 + number)))
    stamp = datetime.fromtimestamp(NOW - age_s, timezone.utc)
    return Run(date(made.path, f"{stamp:%Y%m%d-%H%M%S}-{name}-a1b2", age_s))


def date(path: Path, run_id: str, age_s: float) -> Path:
    """Give a run folder an id and a time of its making that are always the same."""
    created = datetime.fromtimestamp(NOW - age_s, timezone.utc).isoformat().replace("+00:00", "Z")
    change_json(path / "run.json", id=run_id, created=created)
    return path.rename(path.with_name(run_id))


def _record(step: int, better: float) -> dict[str, float]:
    """A meta-loss that falls and ripples, with a spike now and then. Rounded: no library's last digit shows."""
    fall = math.exp(-step / 80)
    ripple = 0.06 * math.sin(step * 1.7) + 0.04 * math.sin(step * 0.37)
    spike = 0.9 if step % 97 == 41 else 0.0
    values = {"step": step, "meta_loss": better * (0.35 + 1.9 * fall + ripple * (0.3 + fall)) + spike}
    values |= {"sharpness": better * 0.02 * (0.2 + fall + ripple), "update_norm": 0.01 * (1 + fall + ripple)}
    if step % 10 == 0:
        values |= {"test_accuracy": 0.93 - 0.7 * fall - 0.05 * (better - 0.7), "validation_loss": 0.3 + 2 * fall}
    return {name: round(value, 5) for name, value in values.items()}


def _law(factor: float) -> Any:
    def figures(seed: int, step: int) -> dict[str, Any]:
        loss = round(2 * step**-0.5 * (1 + 0.01 * seed), 5)
        return dict(mark(loss, round(factor * loss**2, 6)))

    return figures


def _evaluation(factor: float) -> dict[str, Any]:
    return evaluation(_law(factor), steps=(10, 50, 100), seeds=range(5))
