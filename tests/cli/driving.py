"""What the tests of the command line share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zygote

TINY = """
threads = 1
[task]
dataset = "digits"
optimizee = "mlp"
batch_size = 16
[optimizer]
kind = "simple"
[meta]
epochs = 3
inner_steps = 10
truncation = 5
[evaluation]
every = 3
optimizees = 1
examples = 50
restarts = 1
ascent_steps = 1
radii = [0.05]
final_optimizees = 2
"""


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict]:
        """Standard output as JSON lines; fails on anything else."""

        def forbidden(word):
            raise AssertionError(f"{word} is no JSON")

        return [json.loads(line, parse_constant=forbidden) for line in self.out.splitlines()]


def forked_lreg(
    address: str, folder: Path, *arguments: str, stdout: Any = subprocess.PIPE, **variables: str
) -> Outcome:
    """Call `lreg` in a folder, forked from the process at `address`, without the user's settings."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LREG_") and key != "COLUMNS"}
    with zygote.in_use(address):
        environment |= {zygote.ADDRESS: address, **variables}
        command = [sys.executable, "-m", "lreg_tui.cli.app", *arguments]
        pipes = {"stdout": stdout, "stderr": subprocess.PIPE}
        done = zygote.run(command, cwd=folder, env=environment, text=True, **pipes)
    return Outcome(done.returncode, done.stdout, done.stderr)


def eventually(condition, limit_s: float = 240.0):
    """Wait until a condition holds; return what it gave."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def records(folder: Path) -> list[dict]:
    """A run's metrics without what depends on the clock and the machine."""
    timing = ("t", "inner_steps_per_s", "coordinate_steps_per_s", "memory_bytes")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timing} for line in lines]


def completed(words: str) -> list[str]:
    """What a shell offers for the last of some words."""
    from typer.testing import CliRunner

    from lreg_tui.cli.commands import app

    environment = {"_LREG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return CliRunner().invoke(app, [], prog_name="lreg", env=environment).output.split()
