"""A run's metrics as TensorBoard event files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, printable, shortened
from engine.export.target import check_target, new_folder
from engine.runs.reader import Column, RunReader

OWN_FILES = "events.out.tfevents.*"
PIP = "pip install tensorboard"
LARGEST_STEP = 2**53


def export_tensorboard(run: RunReader, path: str | os.PathLike[str], *, force: bool = False) -> dict[str, int]:
    """Write all metrics of a run as event files into a new folder; returns how many values each metric has.

    Steps are meta-steps and the wall times those of the records; the preset is there as text and as hyperparameters.
    A value that was not finite is NaN. Raises LregError where tensorboard is not installed, or where the folder is
    there already or cannot be written.
    """
    target = Path(path)
    check_target(target, force=force, own=OWN_FILES)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LregError(f"--to tensorboard needs the package tensorboard: {PIP} ({error})") from None
    run.poll()
    written: dict[str, int] = {}
    with new_folder(target, OWN_FILES, force=force) as folder, SummaryWriter(str(folder)) as writer:
        began = _began(run)
        _write_preset(writer, run, began)
        for metric, column in run.columns.items():
            written[metric] = _write_column(writer, shortened(printable(metric)), column, began)
    return written


def _write_column(writer: Any, tag: str, column: Column, began: float) -> int:
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

    named = [metric for metric in run.columns if metric.startswith("validation_loss")]
    for summary in hparams(_plain(flat), {metric: 0.0 for metric in named}):
        writer.file_writer.add_summary(summary, None, began)


def _plain(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters are numbers, truth values and text."""
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in flat.items()}


def _began(run: RunReader) -> float:
    times = [time for column in run.columns.values() for time in column.times if math.isfinite(time)]
    return run.created or min(times, default=0.0)
