"""EvaluationTable: the transfer evaluations of a run, a line each; enter shows one with all its marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import DataTable

from engine.base.metrics import Metric
from engine.runs.results import columns
from lreg_tui.runs.run_files import Evaluation, cells, marks_sheet
from lreg_tui.text import present
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.sheet_view import SheetView


class EvaluationTable(DataTable[Text]):
    """Figures at the last inner step. What it shows may have been written by strangers."""

    HELP_TITLE = "Transfers"
    BINDINGS: ClassVar[list[BindingType]] = [bind("open", "select_cursor", "all marks")]
    DEFAULT_CSS = """
    EvaluationTable { height: 1fr; background: $background; scrollbar-size: 1 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, cell_padding=1)
        self.evaluations: Sequence[Evaluation] = ()

    def on_mount(self) -> None:
        self.show_evaluations(())

    def show_evaluations(self, evaluations: Sequence[Evaluation]) -> None:
        """Take over other evaluations; the cursor stays where it was."""
        cursor = self.cursor_row
        self.evaluations = evaluations
        metrics = columns(evaluation.last for evaluation in evaluations)
        if not any(metric.name == "adaptive_sharpness" for metric in metrics):
            metrics = (*reversed(metrics[:-1]), metrics[-1])  # what a task is judged by comes first
        self.clear(columns=True)
        numbers = [*(metric.words for metric in metrics), "inner steps", "seeds"]
        headings = [
            present.text("optimizer"),
            present.text("task"),
            *(Text(present.clean(name), justify="right") for name in numbers),
        ]
        self.add_columns(*headings)
        for evaluation in evaluations:
            self.add_row(*_cells(evaluation, metrics))
        if evaluations:
            self.move_cursor(row=min(cursor, len(evaluations) - 1))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.cursor_row < len(self.evaluations):
            self.app.push_screen(MarksScreen(self.evaluations[event.cursor_row]))


def _cells(evaluation: Evaluation, metrics: Sequence[Metric]) -> list[Text]:
    last = evaluation.last
    label = present.text(present.clean(evaluation.label, 40))
    if evaluation.is_result:
        label.append(" result", "dim")
    if last["diverged"]:
        label.append(f" {last['diverged']} diverged", "red")
    numbers = [*(entry.text for entry in cells(last, metrics)), str(last["inner_step"]), str(last["seeds"])]
    task = present.text(present.clean(evaluation.task, 40))
    return [label, task, *(Text(number, justify="right") for number in numbers)]


class MarksScreen(Dialog[None]):
    """One evaluation with all its marks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("back", "leave", "close"),
        bind("quit", "leave", show=False),
    ]
    DEFAULT_CSS = """
    MarksScreen {
        & > .dialog { width: 96; }
        SheetView { height: 18; max-height: 100%; background: $panel; }
    }
    """

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(evaluation.label)
        self.evaluation = evaluation

    def contents(self) -> Iterable[Widget]:
        yield SheetView()

    def on_mount(self) -> None:
        view = self.query_one(SheetView)
        view.show([marks_sheet(self.evaluation)])
        view.focus()
