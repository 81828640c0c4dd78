"""StudyScreen: one study: a grid of its runs in the colours of their results, its log, its report, keys to steer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from engine.study.plan.kept import report_file
from lreg_tui.runs.acting import MOST_COMPARED
from lreg_tui.runs.feed import RunRow
from lreg_tui.studies.studies_screen import STEERING, SteeringScreen
from lreg_tui.studies.study_axes import StudyAxes
from lreg_tui.studies.study_grid import RANKS, SIGNS, ColourScale, StudyGrid
from lreg_tui.studies.study_rows import WINNER, GridCell, GridJob, GridRow, StudyLook, WatchedStudy
from lreg_tui.text import present
from lreg_tui.text.present import clean
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.log_tail import LogTail
from lreg_tui.widgets.pick_list import Choice, pick_one
from lreg_tui.widgets.threads import off_the_loop

HIGH = 40  # lines from which the log is there at first
ORDER = ("failed", "crashed", "running", "paused", "queued", "stopped")  # what is most urgent is cut last
LEAST_KNOWN = ("failed", "crashed", "stopped", "paused", "queued", "running", "missing")  # whose signs tell least
WORDS = {"missing": "to come"}
HELP = """Cells
A figure is the metric on validation by which winners are picked: less is better, and brighter.
· to come   ○ queued   ▸ running   = paused   ■ stopped   ✕ failed   ! crashed
★ winner of its arm   ☆ best so far"""


class StudyScreen(SteeringScreen, inherit_bindings=False):
    """One study. Its folder may be damaged, or go away while it is shown: the screen says so and stays."""

    AUTO_FOCUS = ""  # the grid gets it once there is one: until then none of its keys is offered
    CSS_PATH = "study_screen.tcss"
    HELP_TITLE = "Study"
    HELP_TEXT = HELP
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
        super().__init__(classes="-nothing")
        self.path = path
        self.study: StudyLook | None = None
        self._watched = WatchedStudy(path)
        self.grid, self.axes = StudyGrid(id="grid"), StudyAxes(id="axes")

    def compose(self) -> ComposeResult:
        yield Static(clean(self.path.name), id="head", markup=False)
        yield Static(id="problem", markup=False)
        yield self.grid
        yield self.axes
        yield Static("reading …", id="instead", markup=False)
        yield Static(id="cell", markup=False)
        yield Static(id="legend", markup=False)
        with Vertical(id="log"):
            yield Static("log of the study", id="log-title", markup=False)
            yield LogTail(self.path / "log.txt", lines=2000)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.set_class(self.size.height >= HIGH, "-log")

    def subjects(self) -> Sequence[RunRow]:
        return [self.study.row] if self.study is not None else []

    # -- looking -----------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        study = await off_the_loop(self._watched.look, "study")
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
        self.say("problem", clean(look.problem, 300))
        self.say("instead", "" if look.problem else "no runs yet: the search has asked for nothing so far")
        self.say("head", head_of(look))
        self.grid.show_study(look)
        self._show_around()
        self.note_subjects()

    @on(StudyGrid.CellHighlighted)
    @on(StudyGrid.Marked)
    def _show_around(self) -> None:
        """What depends on the cell under the cursor."""
        if (study := self.study) is None:
            return
        grid, row = self.grid, self.grid.current_row
        if self.has_class("-axes"):
            self.axes.show_study(study, grid.scale, row.key if row is not None else None)
        self.say("cell", about_cell(study, row, grid.current))
        self.say("legend", legend_of(study, grid.scale, self.app.no_color, self.size.width - 2))
        self.refresh_bindings()

    def on_resize(self) -> None:
        self._show_around()

    def action_axes(self) -> None:
        self.toggle_class("-axes")
        self._show_around()
        self.set_focus(self.view)

    def on_study_axes_moved(self, message: StudyAxes.Moved) -> None:
        rows = self.study.rows if self.study is not None else ()
        self.grid.move_cursor(row=[row.key for row in rows].index(message.key))

    @property
    def view(self) -> Widget:
        """The grid, or what stands in its place."""
        return self.axes if self.has_class("-axes") else self.grid

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "report":
            return self.study is not None and self.study.has_report
        if action == "transfers":
            return bool(self._jobs())
        if action == "compare":
            return self.study is not None and not self.study.problem
        if action == "resume_run" and self.study is not None and self.study.problem:
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
        ids, rows = list(self.grid.marked), self.study.rows if self.study is not None else ()
        points = [row for row in rows if any(cell and cell.run_id in ids for cell in row.cells)]
        if len(ids) > 1 and len(points) <= MOST_COMPARED:
            self.lreg.open_compare(ids)
        else:
            allowed = f"to compare, mark runs of {MOST_COMPARED} rows at most with space"
            self.tell(f"{allowed}; marked: {len(ids)}", "warning")

    def _jobs(self) -> list[GridJob]:
        """The transfer jobs that have begun: that of the run under the cursor, else those of its arm."""
        row, cell = (self.grid.current_row, self.grid.current) if self.is_mounted else (None, None)
        if self.study is None or row is None:
            return []
        of_arm = [job for job in self.study.jobs if job.arm == row.arm and job.state != "missing"]
        of_cell = [job for job in of_arm if cell is not None and job.run_ids == (cell.run_id,)]
        return of_cell or of_arm

    def action_transfers(self) -> None:
        jobs = self._jobs()
        if len(jobs) == 1:
            self.lreg.open_transfer((jobs[0].run_id,))
        elif jobs:
            choices = [Choice(job.run_id, job.words, job.state) for job in jobs]
            pick_one(
                self.app, f"transfers of {jobs[0].arm}", choices, lambda run_id: self.lreg.open_transfer((run_id,))
            )

    def action_log(self) -> None:
        self.toggle_class("-log")
        self.set_focus(self.query_one(LogTail) if self.has_class("-log") else self.view)

    def action_report(self) -> None:
        from lreg_tui.studies.report import ReportScreen

        self.app.push_screen(ReportScreen(report_file(self.path)))

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


# -- what stands around the grid -------------------------------------------------------------------------------------


def head_of(look: StudyLook) -> Text:
    """Two lines: how far the study is, and how many of its runs are in which state."""
    row = look.row
    line = Text.assemble((clean(row.name, 60), "bold"), "  ", present.state_text(row.state), "  ")
    if look.problem:  # nothing is known of its runs
        return line.append(f"\n{clean(row.message, 300)}", "dim")
    line.append(present.percent(look.progress, 0))
    line.append("" if row.eta_s is None else f"  ETA {present.duration(row.eta_s)}")
    line.append("  ").append(present.bar(look.progress))  # last: narrow screens cut it off
    line.append("\n").append(counts(look))
    if row.message and row.state not in ("running", "queued"):
        line.append(f"  {clean(row.message, 300)}", "dim")
    return line


def counts(look: StudyLook) -> str:
    """How many runs and transfers have finished, and what is with the other runs."""
    by_state: Mapping[str, int] = look.counts
    done = f"{by_state.get('finished', 0)} of {len(look.cells)} runs" + " asked for" * look.is_search
    if look.jobs:
        done += f", {sum(job.state == 'finished' for job in look.jobs)} of {len(look.jobs)} transfers"
    other_states = [f"{by_state[state]} {state}" for state in ORDER if by_state.get(state)]
    return "; ".join(filter(None, [done, ", ".join(other_states)]))


def about_cell(look: StudyLook, row: GridRow | None, cell: GridCell | None) -> Text:
    """Two lines on the run under the cursor: which it is; and how it is, with its id as far as there is room."""
    if row is None or cell is None:
        return Text()
    number = f"trial {row.number}" if row.number else ""
    where = [row.arm, number, row.point, f"seed {cell.seed}"]
    line = Text.assemble(("   ".join(clean(part, 120) for part in where if part), "bold"))
    if row.rank:
        of = "winner of its arm" if row.rank == WINNER else "best of its arm so far"
        line.append(f"   {RANKS[row.rank]} {of}")
    line.append("\n").append(present.state_text(WORDS.get(cell.state, cell.state)))
    if cell.value is not None:
        line.append(f"   {present.label(look.metric)} {present.number(cell.value, 5)}")
    elif cell.state not in ("missing", "queued", "finished"):
        line.append(f" {present.percent(cell.done, 0)}")
    if cell.eta_s is not None:
        line.append(f"   ETA {present.duration(cell.eta_s)}")
    line.append(f"   {clean(cell.message, 300)}" if cell.message else "")
    return line.append(f"   {clean(cell.run_id, 200)}", "dim")


def legend_of(look: StudyLook, scale: ColourScale | None, plain: bool, room: int) -> Text:
    """The colours of the figures, the signs in the cells, and what the figures are, if there is room for that."""
    line = Text(no_wrap=True, overflow="ellipsis", end="")
    if scale is not None:
        line.append(scale.legend(plain))
    ranks = {row.rank for row in look.rows}
    signs = [f"{sign} {rank}" for rank, sign in RANKS.items() if rank in ranks]
    signs += [f"{SIGNS[state]} {WORDS.get(state, state)}" for state in LEAST_KNOWN if look.counts.get(state)]
    line.append("   " * bool(line) + "  ".join(signs), "dim")
    metric = f"   {present.label(look.metric)}" if look.metric else ""
    return line.append(metric, "dim") if line.cell_len + cell_len(metric) <= room else line
