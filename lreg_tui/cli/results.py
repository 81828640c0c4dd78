"""The result table of a run, complete at every width: what does not fit side by side stands below each other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import RunError
from engine.evaluation.transfer_plan import Plan
from engine.runs import results
from engine.runs.store import RunReader
from lreg_tui import present
from lreg_tui.cli import output

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

FIGURES = ("train_loss", "test_loss", "test_accuracy", "sharpness")
HEADINGS = {"test_accuracy": "test\naccuracy", "learning_rate": "learning\nrate", "inner_step": "inner\nstep"}
LAYOUTS = ((1, False), (1, True), (0, True))  # padding of a cell, tight intervals; the first that fits is taken
UNBOUNDED = 10_000  # columns


def table(reader: RunReader, console: Console) -> Group | None:
    """Learned optimizer, untrained, and hand-designed optimizers side by side; None before they were measured."""
    rows = results.run_rows(reader)
    return result_table(rows, console) if rows else None


def comparison_of(job: RunReader) -> str:
    """The command that shows what a transfer job found; empty where its plan cannot be read."""
    try:
        runs = [Path(run) for run in Plan.from_json(job.plan()).runs]
    except RunError:
        return ""
    store = job.path.parent.parent
    names = [run.name if run.parent == store or not run.is_dir() else str(run) for run in runs]
    return f"lreg compare {shlex.join(names)}"


def result_table(rows: list[dict[str, Any]], console: Console) -> Group:
    """Means over seeds with 95% confidence intervals, side by side where the console is wide enough."""
    from rich.console import Group

    sign = "±" if output.can_show("±", console.encoding) else "+-"
    for padding, tight in LAYOUTS:
        found = _table(rows, padding, sign if tight else f" {sign} ", remark="\n" if tight else " ")
        if console.measure(found, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
            return Group(found, _caption(rows, sign))  # Rich would wrap a caption of the table at the table's width
    return _blocks(rows, sign, console.width)


def _table(rows: list[dict[str, Any]], padding: int, plus_minus: str, remark: str) -> Table:
    """One row an optimizer. `remark`: what stands between its label and a remark on it."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding), collapse_padding=True)
    found.add_column("optimizer", no_wrap=True)
    cells = _cells(rows, plus_minus)
    for key in cells[0]:
        heading = present.label(key, _radius(rows)).replace(" at ", "\nat ")
        found.add_column(HEADINGS.get(key, heading), justify="right", no_wrap=True)
    for row, values in zip(rows, cells, strict=True):
        found.add_row(_label(row, remark), *values.values())
    return found


def _blocks(rows: list[dict[str, Any]], sign: str, width: int) -> Group:
    """One block an optimizer, one line a figure."""
    from rich.console import Group
    from rich.text import Text

    radius = _radius(rows)
    cells = _cells(rows, f" {sign} ")
    names = {key: f"  {present.label(key, radius)}" for key in cells[0]}
    room = width - output.GAP - max(map(len, names.values()))
    if any(len(value) > room for values in cells for value in values.values()):
        cells = _cells(rows, sign)
    parts: list[Any] = []
    for row, values in zip(rows, cells, strict=True):
        label = _label(row, " ")
        if len(label) > width:
            label = _label(row, "\n  ")
        label.overflow = "fold"
        figures = output.grid()
        for key, value in values.items():
            if value:
                figures.add_row(present.text(names[key], "dim"), Text(value))
        parts += [label, figures]
    return Group(*parts, _caption(rows, sign))


def _cells(rows: list[dict[str, Any]], plus_minus: str) -> list[dict[str, str]]:
    """The figures of every row by name: inner steps where there are several, learning rates where there are any."""
    has_rates = any(row["learning_rate"] is not None for row in rows)
    steps, rates = _has_several_marks(rows), ["learning_rate"] if has_rates else []
    return [
        {
            **({"inner_step": str(row["inner_step"])} if steps else {}),
            **{key: "" if row[key] is None else present.setting(row[key]) for key in rates},
            **{key: present.interval(row[key], key == "test_accuracy", plus_minus) for key in FIGURES},
        }
        for row in rows
    ]


def _label(row: dict[str, Any], remark: str) -> Text:
    label = present.text(row["label"])
    if row["diverged"]:
        label.append(f"{remark}({row['diverged']} of {row['seeds']} diverged)", style="red")
    return label


def _radius(rows: list[dict[str, Any]]) -> str | None:
    return next((row["sharpness"]["radius"] for row in rows if row["sharpness"]["radius"]), None)


def _has_several_marks(rows: list[dict[str, Any]]) -> bool:
    return len({row["inner_step"] for row in rows}) > 1


def _caption(rows: list[dict[str, Any]], sign: str) -> Text:
    at = "" if _has_several_marks(rows) else f"after {rows[0]['inner_step']} inner steps, "
    seeds = max(row["seeds"] for row in rows)
    return present.text(f"{at}{seeds} fresh optimizees each, mean {sign} 95% confidence interval", "dim")
