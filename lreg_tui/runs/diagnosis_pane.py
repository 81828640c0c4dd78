"""DiagnosisPane: whether a run's meta-gradient points the right way, term by term.

What lies in the run's folder is shown; a key makes a diagnosis in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static

from engine.runs.diagnoses import DiagnosisReport
from lreg_tui.runs.run_files import diagnosis_sentences, diagnosis_sheet
from lreg_tui.text import present
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import Computing

ABOUT = "Does the estimated gradient of every term point the right way? enter compares it with the true one (minutes)."


class DiagnosisPane(Computing, Vertical):
    """The newest diagnosis first: the sign test in words, and the table."""

    DEFAULT_CSS = """
    DiagnosisPane #diagnosis-words { height: auto; max-height: 3; padding: 0 1; color: $text-muted; margin-bottom: 1; }
    DiagnosisPane SheetView { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "compute", "diagnose", "compare every estimated gradient with the true one"),
        bind("take_back", "give_up", "give up", "stop diagnosing"),
    ]

    class Added(Message):
        """There is a new diagnosis in the run's folder."""

    def __init__(self, *, data_dir: Path | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.data_dir = data_dir
        self.run_path: Path | None = None

    def compose(self) -> ComposeResult:
        yield Static(ABOUT, id="diagnosis-words", markup=False)
        yield SheetView("no diagnosis yet", id="diagnosis-sheets")

    def show_diagnoses(self, run_path: Path | None, reports: Sequence[DiagnosisReport]) -> None:
        """Those of a run; None for a job that cannot be diagnosed."""
        self.run_path = run_path
        sheets = [sheet for report in reports for sheet in (diagnosis_sentences(report), diagnosis_sheet(report))]
        self.query_one(SheetView).show(sheets)
        self.refresh_bindings()

    @property
    def can_compute(self) -> bool:  # type: ignore[override]
        return self.run_path is not None

    @work(exclusive=True, group="diagnosis", exit_on_error=False)
    async def action_compute(self) -> None:
        if self.run_path is None:
            return
        share = ""

        async def on_event(event: dict[str, Any]) -> None:
            nonlocal share
            done, total = event.get("done"), event.get("total")
            if isinstance(done, int) and isinstance(total, int) and total > 0:
                share = f" {present.percent(done / total, 0)},"

        def on_poll(elapsed_s: float) -> None:
            self._say(f"Diagnosing:{share} {present.duration(elapsed_s)} so far.")

        arguments = [str(self.run_path), *(["--data-dir", str(self.data_dir)] if self.data_dir else [])]
        problem = await self._helper.run("engine.jobs.diagnosis_worker", arguments, on_event, on_poll)
        self._say(problem or ABOUT)
        self.post_message(self.Added())

    def _say(self, words: str) -> None:
        self.query_one("#diagnosis-words", Static).update(present.clean(words, 400))
        self.refresh_bindings()
