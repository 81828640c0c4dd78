"""A run's metrics and transfer evaluations as CSV files, its metrics as TensorBoard event files."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, printable, shortened
from engine.base.metrics import MACHINE
from engine.base.status import is_number
from engine.export.target import check_target, new_folder
from engine.runs.evaluations import tables, task_name
from engine.runs.reader import MetricColumn, RunReader

CSV_FILES = "*.csv"
TRANSFER_COLUMNS = ("task", "optimizer", "label", "scale", "seed", "inner_step", "figure", "radius", "value")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so
EVENT_FILES = "events.out.tfevents.*"
PIP = "pip install tensorboard"
LARGEST_STEP = 2**53


def export_csv(run: RunReader, path: str | os.PathLike[str], *, force: bool = False) -> dict[str, int]:
    """Write metrics.csv, machine.csv and transfers.csv into a new folder; returns how many rows each has.

    metrics.csv and machine.csv (what the run's process took of its machine): a row for each record, a column for each
    metric, `t` in unix seconds. transfers.csv: a row for each figure of each mark of each optimizee; `inner_step` is
    empty for figures of the whole unroll, and the learning curve is there as figure train_loss_curve. A value that was
    not finite is empty. Raises LregError where the folder is there already or cannot be written.
    """
    with new_folder(Path(path), CSV_FILES, force=force) as folder:
        run.poll()
        of_machine = [name for name in run.columns if name in MACHINE]
        metrics = [name for name in run.columns if name not in MACHINE]
        again = RunReader(run.path)  # read once more, now that all columns are known
        transfers = transfer_rows(run.transfers().values())
        return {
            "metrics.csv": _write_records(folder / "metrics.csv", metrics, again.records()),
            "machine.csv": _write_records(folder / "machine.csv", of_machine, again.machine_records()),
            "transfers.csv": _write(folder / "transfers.csv", TRANSFER_COLUMNS, transfers),
        }


def transfer_rows(evaluations: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """The rows of transfers.csv. What does not have the form of a transfer evaluation is left out."""
    for evaluation in evaluations:
        optimizer = evaluation.get("optimizer")
        shared = [task_name(evaluation.get("task")), optimizer, evaluation.get("label"), evaluation.get("scale")]
        for seed in tables(evaluation.get("seeds")):
            for inner_step, figure, radius, value in _figures(seed):
                yield [*shared, seed.get("seed"), inner_step, figure, radius, value]


def _figures(seed: Mapping[str, Any]) -> Iterator[tuple[Any, str, str, Any]]:
    """Inner step, figure, radius and value of everything that was measured of one optimizee."""
    for figure, value in seed.items():
        if isinstance(value, bool) and figure == "diverged":
            yield "", figure, "", int(value)
        elif figure != "seed" and is_number(value, True):
            yield "", figure, "", value
    curve = seed.get("curve")
    if isinstance(curve, Mapping) and all(isinstance(curve.get(key), list) for key in ("inner_step", "train_loss")):
        for inner_step, value in zip(curve["inner_step"], curve["train_loss"], strict=False):
            yield inner_step, "train_loss_curve", "", value
    for mark in tables(seed.get("marks")):
        for figure, value in mark.items():
            if isinstance(value, Mapping):
                for radius, at_radius in value.items():
                    yield mark.get("inner_step"), figure, radius, at_radius
            elif figure != "inner_step":
                yield mark.get("inner_step"), figure, "", value


def _write_records(path: Path, metrics: Iterable[str], records: Iterable[Mapping[str, Any]]) -> int:
    header = ["step", "t", *metrics]
    return _write(path, header, ([record.get(name) for name in header] for record in records))


def _write(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([cell(name) for name in header])
        for row in rows:
            writer.writerow([cell(value) for value in row])
            count += 1
    return count


def cell(value: Any) -> str:
    """A value as it stands in a cell: numbers in full, nothing for null, and text that no spreadsheet takes for a
    formula (it gets an apostrophe in front) and no terminal for a command.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    text = str(value)
    return printable(f"'{text}" if text.startswith(FORMULA) else text)


def export_tensorboard(run: RunReader, path: str | os.PathLike[str], *, force: bool = False) -> dict[str, int]:
    """Write all metrics of a run as event files into a new folder; returns how many values each metric has.

    Steps are meta-steps and the wall times those of the records; the preset is there as text and as hyperparameters.
    A value that was not finite is NaN. Raises LregError where tensorboard is not installed, or where the folder is
    there already or cannot be written.
    """
    target = Path(path)
    check_target(target, force=force, pattern=EVENT_FILES)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LregError(f"--to tensorboard needs the package tensorboard: {PIP} ({error})") from None
    run.poll()
    written: dict[str, int] = {}
    with new_folder(target, EVENT_FILES, force=force) as folder, SummaryWriter(str(folder)) as writer:
        times = (time for column in run.columns.values() for time in column.times if math.isfinite(time))
        began = run.created or min(times, default=0.0)
        _write_preset(writer, run, began)
        for metric, column in run.columns.items():
            written[metric] = _write_column(writer, shortened(printable(metric)), column, began)
    return written


def _write_column(writer: Any, tag: str, column: MetricColumn, began: float) -> int:
    """One value for each step, the last that was recorded of it: an evaluation repeats what it belongs to."""
    newest: dict[int, tuple[float, float]] = {}
    when = began
    for step, time, value in zip(column.steps, column.times, column.values, strict=True):
        when = time if math.isfinite(time) else when
        if step.is_integer() and abs(step) < LARGEST_STEP:
            newest[int(step)] = value, when
    for step in sorted(newest):
        value, when = newest[step]
        writer.add_scalar(tag, value, step, walltime=when)
    return len(newest)


def _write_preset(writer: Any, run: RunReader, began: float) -> None:
    text = "".join(f"    {line}\n" for line in run.preset_text.splitlines())  # a block of code in Markdown
    writer.add_text("preset", text or "(no preset)", 0, walltime=began)
    try:
        flat = run.preset().flat()
    except LregError:
        return  # the text says what can be known
    from torch.utils.tensorboard.summary import hparams

    plain = {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in flat.items()}
    named = {metric: 0.0 for metric in run.columns if metric.startswith("validation_loss")}
    for summary in hparams(plain, named):
        writer.file_writer.add_summary(summary, None, began)
