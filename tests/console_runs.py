"""Run folders for `console_speed.py`: many, long and live ones. As a script it is the process that writes live ones."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine.presets.preset import from_mapping
from engine.runs.store import Run

METRICS: tuple[str, ...] = (
    "meta_loss",
    "sharpness",
    "test_accuracy",
    "update_norm",
    "sam_penalty",
    "meta_grad_norm",
    "learning_rate",
    "inner_steps_per_s",
    "train_loss",
    "memory_bytes",
)
FLOAT32 = ("meta_loss", "update_norm", "sam_penalty", "meta_grad_norm", "test_accuracy", "train_loss")  # as in runs
LIVE_EVERY_S = 0.2  # between two records of a run that is being written


def make_run(runs: Path, name: str, state: str = "finished") -> Path:
    made = Run.create(runs, from_mapping({"name": name, "task": {"dataset": "digits"}}))
    latest = dict.fromkeys(METRICS, 0.25)
    made.set_status(state=state, step=10, total=10, message="", latest=latest)
    return made.path


def make_saved(runs: Path, count: int) -> None:
    """Copies of one run, each with an id of its own."""
    first = make_run(runs, "saved")
    for number in range(count - 1):
        path = runs / f"{first.name[:-4]}{number:04d}"
        shutil.copytree(first, path)
        facts = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps({**facts, "id": path.name, "name": f"saved {number}"}))


def make_studies(runs: Path, seeds: int = 5) -> None:
    """Runs of three studies, one a dataset: without a penalty, and with several at four radii, gam with smooth the best
    at 0.1. The names tell little.
    """
    for dataset in ("digits", "mnist", "fmnist"):
        task = {"dataset": dataset}
        make_arm(runs, f"{dataset}-vanilla", seeds, 0.5, task=task)
        for number, rho in enumerate((0.02, 0.05, 0.1, 0.2)):
            loss, gam = 0.4 + abs(number - 2) / 10, {"gam": {"rho": rho}}
            make_arm(runs, f"{dataset}-a-{number}", seeds, 0.1 + loss, task=task, penalty={"sam": {"rho": rho}})
            make_arm(runs, f"{dataset}-b-{number}", seeds, 0.2 + loss, task=task, penalty=gam)
            make_arm(runs, f"{dataset}-c-{number}", seeds, loss, task=task, penalty={**gam, "smooth": {"weight": 0.1}})


def make_arm(runs: Path, name: str, seeds: int, loss: float, **tables: Any) -> None:
    """Repeats of one run, each with a seed and an id of its own."""
    tags = [f"study:{tables['task']['dataset']}-flat"]
    made = Run.create(runs, from_mapping({"name": f"{name}-s0", "tags": tags, **tables}))
    records = [{"step": step, "meta_loss": loss, "validation_loss": loss, "sharpness": loss} for step in range(20)]
    made.append(records)
    made.set_status(state="finished", step=20, total=20, message="", latest=records[-1])
    for seed in range(1, seeds):
        path = runs / f"{made.path.name[:-4]}{seed:04d}"
        shutil.copytree(made.path, path)
        for file in (path / "preset.toml", path / "run.json"):
            text = file.read_text().replace(f"{name}-s0", f"{name}-s{seed}").replace(made.path.name, path.name)
            file.write_text(text.replace("seed = 0", f"seed = {seed}").replace('"seed": 0', f'"seed": {seed}'))


def make_long(path: Path, records: int, metrics: int, narrow: Sequence[str] = FLOAT32) -> None:
    """metrics.jsonl of a long run: noisy curves with all digits that floats of 64 or (`narrow`) 32 bits have."""
    chance, pack = random.Random(0), struct.Struct("f")
    names = METRICS[:metrics]
    began = time.time() - records
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(records):
            values = [round(began + step, 6), step]
            for name in names:
                value = chance.random() * (2.0 + 1e3 / (1 + step))
                values.append(pack.unpack(pack.pack(value))[0] if name in narrow else value)
            pairs = zip(("t", "step", *names), values, strict=True)
            file.write("{" + ", ".join(f'"{name}": {value!r}' for name, value in pairs) + "}\n")


def write_live(paths: Sequence[str]) -> None:
    """The other process: three runs that get five records a second."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Run(path)) for path in paths]
        step, chance = 0, random.Random(1)
        while True:
            for run in runs:
                run.append([{"step": step, **{name: 2 / (1 + 0.01 * step) + chance.random() for name in METRICS}}])
                run.progress(step, 100_000, 3600.0)
            step += 1
            time.sleep(LIVE_EVERY_S)


@contextmanager
def three_live(runs: Path) -> Iterator[list[Path]]:
    paths = [make_run(runs, f"live {number}", "queued") for number in range(3)]
    writer = subprocess.Popen([sys.executable, __file__, *map(str, paths)])
    try:
        while not all((path / "metrics.jsonl").exists() for path in paths):
            time.sleep(0.05)
        time.sleep(5.0)  # some records
        yield paths
    finally:
        writer.kill()
        writer.wait()
        for path in paths:
            shutil.rmtree(path)


if __name__ == "__main__":
    write_live(sys.argv[1:])
