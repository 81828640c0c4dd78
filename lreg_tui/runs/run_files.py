"""What a run folder holds beside its metrics: checkpoints and transfer evaluations, as sheets. Reads files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import LregError
from engine.base.files import read_json
from engine.runs.kinds import TRANSFER
from engine.runs.reader import CHECKPOINTS, RunReader
from engine.runs.results import rows
from lreg_tui.text import present
from lreg_tui.text.sheets import Entry, Sheet
from lreg_tui.widgets.toml_area import LARGEST, LONGEST_LINE

WHAT = {
    "best": "lowest validation loss",
    "last": "where `resume` goes on",
    "initial": "before any meta-step: the untrained control",
}
FIGURES = ("train_loss", "test_loss", "test_accuracy", "sharpness")


@dataclass(frozen=True)
class Evaluation:
    """One transfer file: its name, what it is an evaluation of, and a row for every mark. Strangers' text."""

    name: str
    label: str
    task: str
    is_result: bool  # from the end of meta-training itself
    marks: Sequence[Mapping[str, Any]]

    @property
    def last(self) -> Mapping[str, Any]:
        """The row of the last mark."""
        return self.marks[-1]


@dataclass(frozen=True)
class Checkpoint:
    """Its meta-step and size in words, and when it was written, unix s."""

    name: str
    step: str
    size: str
    written: float


@dataclass(frozen=True)
class Files:
    """What was read of the run folder, and the stamp of when."""

    stamp: tuple[object, ...]
    checkpoints: Sequence[Checkpoint]
    evaluations: Sequence[Evaluation]


def checkpoints(reader: RunReader) -> list[Checkpoint]:
    found = []
    for name, path in reader.checkpoints().items():
        try:
            facts = path.stat()
        except OSError:
            continue
        step = _step(read_json(path.with_suffix(".json"), 2**26, path.parent.parent))
        size = present.size(facts.st_size + _size(path.with_suffix(".json")))
        found.append(Checkpoint(name, step, size, facts.st_mtime))
    return found


def checkpoints_sheet(found: Sequence[Checkpoint]) -> Sheet:
    """Name, meta-step, size and age of each checkpoint."""
    ages = [f"{present.age(item.written)} ago" for item in found]
    rows = [
        (item.name, [Entry(item.step), Entry(item.size), Entry(age)]) for item, age in zip(found, ages, strict=True)
    ]
    remarks = [f"{item.name}: {WHAT[item.name]}" for item in found]
    return Sheet("", "checkpoint", ("meta-step", "size", "written"), rows, remarks)


def _step(facts: Mapping[str, Any]) -> str:
    """The meta-step that a checkpoint was written at; of `last`, that of its trainer."""
    trainer = facts.get("trainer")
    step = facts.get("step", trainer.get("step") if isinstance(trainer, dict) else None)
    return str(step) if isinstance(step, int) and not isinstance(step, bool) else present.NOTHING


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def stamp(reader: RunReader) -> tuple[Any, ...]:
    """Changes when a checkpoint or a transfer file comes, goes or is replaced."""
    found: list[Any] = []
    for folder in ("checkpoint", "transfer"):
        try:
            entries = sorted(os.scandir(reader.path / folder), key=lambda entry: entry.name)
            facts = [(entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name[0] != "."]
        except OSError:
            continue
        found += [fact for fact in facts if folder == "transfer" or fact[0].rpartition(".")[0] in CHECKPOINTS]
    return tuple(found)


def evaluations(reader: RunReader) -> list[Evaluation]:
    """Every transfer file that holds figures: task by task, learned optimizers before baselines."""
    found = []
    for name, values in reader.transfers().items():
        marks = rows([values])
        if marks:
            task = marks[-1]["task"]
            words = [str(task.get(key, "?")) for key in ("dataset", "optimizee")] if isinstance(task, dict) else ["?"]
            found.append(Evaluation(name, str(marks[-1]["label"]), "/".join(words), name.startswith("result-"), marks))
    return sorted(found, key=lambda item: (not item.is_result, item.task, item.last["learning_rate"] is not None))


def marks_sheet(evaluation: Evaluation) -> Sheet:
    """All marks of one evaluation, one row an inner step: means and 95% intervals over seeds."""
    radius = evaluation.last["sharpness"]["radius"]
    columns = [present.label(name, radius).replace(" at ", "\nat ") for name in FIGURES]
    lines = [(str(mark["inner_step"]), [Entry(cell) for cell in figures(mark)]) for mark in evaluation.marks]
    remarks = [f"{evaluation.last['seeds']} fresh optimizees each, mean ± 95% confidence interval"]
    if evaluation.last["diverged"]:
        remarks.append(f"{evaluation.last['diverged']} of them diverged")
    if evaluation.last["learning_rate"] is not None:
        remarks.append(f"learning rate {present.setting(evaluation.last['learning_rate'])}")
    title = f"{evaluation.label} on {evaluation.task}"
    return Sheet(title, "inner step", columns, lines, [*remarks, f"transfer/{evaluation.name}.json"])


def figures(mark: Mapping[str, Any]) -> list[str]:
    return [present.interval(mark[name], name == "test_accuracy") for name in FIGURES]


def preset_of(reader: RunReader) -> tuple[str, str]:
    """The text of a run's preset (of a job: its plan), and what is wrong with it."""
    if reader.kind is TRANSFER:
        return json.dumps(reader.plan(), indent=1), ""
    lines = present.clean_toml(reader.preset_text[:LARGEST]).split("\n")
    text = "\n".join(line if len(line) < LONGEST_LINE else f"{line[:LONGEST_LINE]} …" for line in lines)
    try:
        reader.preset()
    except LregError as error:
        return text, str(error)
    return text, ""


def files_of(reader: RunReader, before: Files | None) -> Files:
    """What the folder holds now; the very same object where nothing has changed."""
    now = stamp(reader)
    if before is not None and before.stamp == now:
        return before
    return Files(now, checkpoints(reader), evaluations(reader))
