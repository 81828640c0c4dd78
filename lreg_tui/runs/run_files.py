"""What a run folder holds beside its metrics: checkpoints, transfer evaluations and diagnoses. Reads files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import LregError
from engine.base.files import read_json
from engine.runs import diagnoses
from engine.runs.diagnoses import AGREES, OPPOSITE, UNCLEAR, DiagnosisReport, Slope
from engine.runs.kinds import TRANSFER
from engine.runs.reader import CHECKPOINTS, RunReader
from engine.runs.results import columns, rows
from lreg_tui.text import present
from lreg_tui.text.present import LARGEST, LONGEST_LINE
from lreg_tui.text.sheets import BETTER, WORSE, Entry, Sheet

WHAT = {
    "best": "lowest validation loss",
    "last": "where `resume` goes on",
    "initial": "before any meta-step: the untrained control",
}
DIAGNOSED = ("value", "estimated [95%]", "true [95%]", "ratio", "cosine", "sign")
STYLES = {AGREES: BETTER, OPPOSITE: WORSE}
Row = Mapping[str, Any]  # of engine.runs.results.rows


@dataclass(frozen=True)
class Evaluation:
    """One transfer file: its name, what it is an evaluation of, and a row for every mark. Strangers' text."""

    name: str
    label: str
    task: str
    is_result: bool  # from the end of meta-training itself
    marks: Sequence[Row]

    @property
    def last(self) -> Row:
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
    results: Sequence[Sheet]  # of these: for each task at the last inner step, then at every mark
    diagnoses: Sequence[DiagnosisReport]


def facts_of(reader: RunReader) -> dict[str, str]:
    """Where a run comes from, in words, which are empty for what is not known."""
    facts = reader.facts
    versions = facts["versions"] if isinstance(facts.get("versions"), dict) else {}
    argv = [str(word) for word in facts["argv"]] if isinstance(facts.get("argv"), list) else []
    return {
        "command": " ".join([os.path.basename(argv[0]), *argv[1:]]) if argv else "",  # as it was typed
        "seed": str(facts.get("seed", "")),
        "device": reader.status().device or reader.device,
        "data": str(facts.get("data_dir") or ""),
        "host": str(facts.get("host", "")),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()),
        "git": str(facts.get("git") or ""),
        "starts from": str(facts.get("parent") or ""),
        "checkpoints": ", ".join(reader.checkpoints()),
    }


def checkpoints(reader: RunReader) -> list[Checkpoint]:
    listed = []
    for name, path in reader.checkpoints().items():
        about = path.with_suffix(".json")
        try:
            facts, size = path.stat(), about.stat().st_size if about.exists() else 0
        except OSError:
            continue
        step = _step(read_json(about, 2**26, path.parent.parent))
        listed.append(Checkpoint(name, step, present.size(facts.st_size + size), facts.st_mtime))
    return listed


def checkpoint_sheets(files: Files) -> list[Sheet]:
    listed = files.checkpoints
    lines = [
        (item.name, [Entry(item.step), Entry(item.size), Entry(f"{present.age(item.written)} ago")]) for item in listed
    ]
    remarks = [f"{item.name}: {WHAT[item.name]}" for item in listed]
    return [Sheet("", "checkpoint", ("meta-step", "size", "written"), lines, remarks)] if listed else []


def result_sheets(evaluations: Iterable[Evaluation], every_mark: bool = False) -> list[Sheet]:
    """A table for each task, at the last inner step or at every mark."""
    tasks: dict[str, list[Row]] = {}
    for evaluation in evaluations:
        tasks.setdefault(evaluation.task, []).extend(evaluation.marks if every_mark else evaluation.marks[-1:])
    return [result_sheet(results, f"{task}, all marks" if every_mark else task) for task, results in tasks.items()]


def _step(facts: Mapping[str, Any]) -> str:
    """The meta-step that a checkpoint was written at; of `last`, that of its trainer."""
    trainer = facts.get("trainer")
    step = facts.get("step", trainer.get("step") if isinstance(trainer, dict) else None)
    return str(step) if isinstance(step, int) and not isinstance(step, bool) else present.NOTHING


def stamp(reader: RunReader) -> tuple[Any, ...]:
    """Changes when a checkpoint, a transfer file or a diagnosis comes, goes or is replaced."""
    stamps: list[Any] = []
    for folder in ("checkpoint", "transfer", ""):
        try:
            entries = sorted(os.scandir(reader.path / folder), key=lambda entry: entry.name)
            facts = [(entry.name, entry.stat().st_mtime_ns) for entry in entries if _is_read(folder, entry.name)]
        except OSError:
            continue
        stamps += facts
    return tuple(stamps)


def _is_read(folder: str, name: str) -> bool:
    """Whether a file is one of those that are looked into."""
    if folder == "checkpoint":
        return name.rpartition(".")[0] in CHECKPOINTS
    return name[0] != "." if folder else name.startswith(diagnoses.PREFIX)


def evaluations(reader: RunReader) -> list[Evaluation]:
    """Every transfer file that holds figures: task by task, learned optimizers before baselines."""
    listed = []
    for name, values in reader.transfers().items():
        marks = rows([values])
        if marks:
            task = marks[-1]["task"]
            words = [str(task.get(key, "?")) for key in ("dataset", "optimizee")] if isinstance(task, dict) else ["?"]
            label = str(marks[-1]["label"]) + ", result" * name.startswith("result-")
            told = [{**mark, "label": label} for mark in marks]
            listed.append(Evaluation(name, label, "/".join(words), name.startswith("result-"), told))
    return sorted(listed, key=lambda item: (not item.is_result, item.task, item.last["learning_rate"] is not None))


def result_sheet(results: Sequence[Row], title: str = "") -> Sheet:
    """Optimizers side by side, a line each: at several inner steps a line for each of those. Means with 95% intervals,
    red where an optimizee diverged."""

    def radius(name: str) -> str | None:
        return next(filter(None, (row.get(name, {}).get("radius") for row in results)), None)

    metrics = columns(results)
    chosen = {  # that are not the same, or not known, for all
        "inner_step": len({row["inner_step"] for row in results}) > 1,
        "learning_rate": any(row["learning_rate"] is not None for row in results),
    }
    names = [name for name, is_told in chosen.items() if is_told]
    lines = []
    for row in results:
        remark = f"\n({row['diverged']} of {row['seeds']} diverged)" if row["diverged"] else ""
        rate = "" if row["learning_rate"] is None else present.setting(row["learning_rate"])
        facts = {"inner_step": str(row["inner_step"]), "learning_rate": rate}
        means = (present.interval(row.get(metric.name, {}), metric.unit == "share") for metric in metrics)
        entries = [Entry(mean, style="red" if row["diverged"] else "") for mean in means]
        lines.append((f"{row['label']}{remark}", [*(Entry(facts[name]) for name in names), *entries]))
    at = "" if "inner_step" in names else f"after {results[0]['inner_step']} inner steps, "
    seeds = max(row["seeds"] for row in results)
    headings = [*map(present.heading, names), *(present.heading(metric, radius(metric.name)) for metric in metrics)]
    remarks = [f"{at}{seeds} fresh optimizees each, mean ± 95% confidence interval"]
    return Sheet(title, "optimizer", headings, lines, remarks)


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
    measured = evaluations(reader)
    results = [*result_sheets(measured), *result_sheets(measured, every_mark=True)]
    return Files(now, checkpoints(reader), measured, results, diagnoses.read_all(reader))


def diagnosis_sheet(report: DiagnosisReport) -> Sheet:
    """A line for every part: both derivatives by the log of the update scale, means over optimizees."""
    lines = []
    for part in report.parts:
        numbers = [present.number(part.value, 3), _slope(part.estimated), _slope(part.true)]
        numbers += [present.number(part.ratio, 3), present.number(part.cosine, 2)]
        verdict = Entry(part.verdict, style=STYLES.get(part.verdict, ""))
        lines.append((part.label, [*map(Entry, numbers), verdict]))
    remarks = [report.about, "derivatives by the log of the update scale: above 0 descent steps less, below 0 more"]
    if any(part.verdict == UNCLEAR for part in report.parts):
        remarks.append("unclear: an interval includes 0; more optimizees (--optimizees) narrow it")
    return Sheet(report.file, "part", DIAGNOSED, lines, remarks)


def diagnosis_sentences(report: DiagnosisReport) -> Sheet:
    """The sign test in words, the wrong ones first."""
    rows = [(part.verdict, [Entry(words)]) for part, words in zip(report.parts, report.sentences(), strict=True)]
    rows.sort(key=lambda row: row[0] != OPPOSITE)
    return Sheet(f"checkpoint {report.checkpoint}, {report.created[:16]}", "sign", ("in words",), rows)


def _slope(slope: Slope | None) -> str:
    return present.NOTHING if slope is None else str(slope).replace(" [", "\n[")
