"""StudyScreen: one study: a grid of its runs in the colours of their results, its log, its report, keys to steer it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from lreg_tui.runs.acting import MOST_COMPARED
from lreg_tui.runs.feed import RunRow
from lreg_tui.studies import study_text
from lreg_tui.studies.folders import REPORT, Watched
from lreg_tui.studies.steering import STEERING, SteeringScreen
from lreg_tui.studies.study_axes import StudyAxes
from lreg_tui.studies.study_grid import StudyGrid
from lreg_tui.studies.study_rows import GridJob, StudyLook
from lreg_tui.text.present import clean
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.log_tail import LogTail
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop

HIGH = 40  # lines from which the log is there at first


class StudyScreen(SteeringScreen, inherit_bindings=False):
    """One study. Its folder may be damaged, or go away while it is shown: the screen says so and stays."""

    AUTO_FOCUS = ""  # the grid gets it once there is one: until then none of its keys is offered
    CSS_PATH = "study_screen.tcss"
    HELP_TITLE = "Study"
    HELP_TEXT = study_text.HELP
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("compare", "compare", tooltip=f"the marked runs, of {MOST_COMPARED} rows at most"),
        bind("transfer", "transfers", tooltip="transfer evaluations of the run under the cursor, or its arm"),
        bind("log", "log", tooltip="the end of the study's log, or without it"),
        bind("other_view", "axes", "grid/chart", "parallel coordinates: settings against the result"),
        bind("report", "report", tooltip="the report, as far as it is written"),
        *STEERING,
        bind("back", "back", tooltip="without marks, then to the screen before; the study goes on"),
        bind("copy", "copy_id", "copy id", "copy the study's id to the clipboard"),
    ]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.study: StudyLook | None = None
        self._watched = Watched(path)
        self._is_looking = False
        self._said: dict[str, object] = {}  # what the lines around the grid show

    def compose(self) -> ComposeResult:
        yield Static(clean(self.path.name), id="head", markup=False)
        yield Static(id="problem", markup=False)
        yield StudyGrid(id="grid")
        yield StudyAxes(id="axes")
        yield Static("reading …", id="instead", markup=False)
        yield Static(id="cell", markup=False)
        yield Static(id="legend", markup=False)
        with Vertical(id="log"):
            yield Static("log of the study", id="log-title", markup=False)
            yield LogTail(self.path / "log.txt", lines=2000)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.set_class(self.size.height >= HIGH, "-log")
        self.add_class("-nothing")
        self.set_interval(self.lreg.feed.interval, self.look)
        self.look()

    @property
    def grid(self) -> StudyGrid:
        return self.query_one(StudyGrid)

    def subjects(self) -> Sequence[RunRow]:
        return [self.study.row] if self.study is not None else []

    # -- looking -----------------------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        self.look()

    @work(group="look")
    async def look(self) -> None:
        """Read the study's folders, unless nobody sees it or they are being read."""
        if self._is_looking or not (self.is_current or isinstance(self.app.screen, ModalScreen)):
            return
        self._is_looking = True
        try:
            study = await off_the_loop(self._watched.look, "study")
        finally:
            self._is_looking = False
        if study != self.study:
            self.study = study
            self._show()

    def _show(self) -> None:
        assert self.study is not None
        look = self.study
        self.set_class(bool(look.problem), "-problem")
        self.set_class(not look.rows, "-nothing")
        if look.problem and self.focused is self.view:
            self.set_focus(None)
        elif not look.problem and self.focused is None:
            self.view.focus()
        self._say("problem", clean(look.problem, 300))
        self._say("instead", "" if look.problem else "no runs yet: the search has asked for nothing so far")
        self._say("head", study_text.head(look))
        self.grid.show_study(look)
        self._show_axes()
        self._say_legend()
        self._show_cell()
        self.note_subjects()
        self.refresh_bindings()

    @on(StudyGrid.CellHighlighted)
    @on(StudyGrid.Marked)
    def _cursor_moved(self) -> None:
        self._show_cell()
        self._show_axes()
        self._say_legend()
        self.refresh_bindings()

    def on_resize(self) -> None:
        self._say_legend()

    def _show_axes(self) -> None:
        if self.study is not None and self.has_class("-axes"):
            row = self.grid.current_row
            self.query_one(StudyAxes).show_study(self.study, self.grid.scale, row.key if row is not None else None)

    def action_axes(self) -> None:
        self.toggle_class("-axes")
        self._show_axes()
        self.set_focus(self.view)

    def on_study_axes_moved(self, message: StudyAxes.Moved) -> None:
        rows = self.study.rows if self.study is not None else ()
        self.grid.move_cursor(row=[row.key for row in rows].index(message.key))

    @property
    def view(self) -> Widget:
        """The grid, or what stands in its place."""
        return self.query_one(StudyAxes) if self.has_class("-axes") else self.grid

    def _show_cell(self) -> None:
        if self.study is not None:
            self._say("cell", study_text.cell(self.study, self.grid.current_row, self.grid.current))

    def _say_legend(self) -> None:
        if self.study is not None:
            legend = study_text.legend(self.study, self.grid.scale, self.app.no_color, self.size.width - 2)
            self._say("legend", legend)

    def _say(self, where: str, what: object) -> None:
        """Only what is different is drawn again."""
        if self._said.get(where) != what:
            self._said[where] = what
            self.query_one(f"#{where}", Static).update(what)  # type: ignore[arg-type]

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "report":
            return self.study is not None and self.study.has_report
        if action == "transfers":
            return bool(self._jobs())
        if action in ("compare", "resume_run") and self.study is not None and self.study.problem:
            return False
        return super().check_action(action, parameters)

    @on(StudyGrid.CellSelected)
    def _open(self) -> None:
        if (cell := self.grid.current) is None:
            return
        if self.lreg.row(cell.run_id) is not None:
            self.lreg.open_run(cell.run_id)
        else:
            self.tell("this run has not begun yet", "warning")

    def action_compare(self) -> None:
        ids = list(self.grid.marked)
        points = (
            [row for row in self.study.rows if any(cell and cell.run_id in ids for cell in row.cells)]
            if self.study
            else []
        )
        if len(ids) > 1 and len(points) <= MOST_COMPARED:
            self.lreg.open_compare(ids)
        else:
            self.tell(
                f"to compare, mark runs of {MOST_COMPARED} rows at most with space; marked: {len(ids)}", "warning"
            )

    def _jobs(self) -> list[GridJob]:
        """The transfer jobs that have begun: that of the run under the cursor, else those of its arm."""
        row, cell = (self.grid.current_row, self.grid.current) if self.is_mounted else (None, None)
        if self.study is None or row is None:
            return []
        there = [job for job in self.study.jobs if job.arm == row.arm and job.state != "missing"]
        own = [job for job in there if cell is not None and job.run_ids == (cell.run_id,)]
        return own or there

    def action_transfers(self) -> None:
        jobs = self._jobs()
        if len(jobs) == 1:
            self.lreg.open_transfer((jobs[0].run_id,))
        elif jobs:
            choices = [Choice(job.run_id, job.words, job.state) for job in jobs]
            asked = PickList(f"transfers of {jobs[0].arm}", choices)
            self.app.push_screen(asked, lambda picked: self.lreg.open_transfer(picked) if picked else None)

    def action_log(self) -> None:
        self.toggle_class("-log")
        self.set_focus(self.query_one(LogTail) if self.has_class("-log") else self.view)

    def action_report(self) -> None:
        from lreg_tui.studies.report import ReportScreen

        self.app.push_screen(ReportScreen(self.path / REPORT))

    def action_back(self) -> None:
        """One step: from the log to the grid, from its other view, from marks to none, to the screen before."""
        if self.focused is not self.view and self.view.display:
            self.view.focus()
        elif self.has_class("-axes"):
            self.action_axes()
        elif self.grid.marked:
            self.grid.clear_marks()
        else:
            self.dismiss()
