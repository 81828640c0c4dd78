"""RunScreen: all about one run: curves, preset, log, checkpoints, transfers, diagnoses; and the keys that steer it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from engine.presets.catalog import USUAL_ESTIMATOR
from engine.runs.diagnoses import DiagnosisReport
from engine.runs.store import RunReader
from lreg_tui.charts.chart import Chart
from lreg_tui.runs import run_files
from lreg_tui.runs.acting import ACTIONS, ActingScreen
from lreg_tui.runs.console_base import RunsChanged, SeriesChanged
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.metric_panel import MetricGrid
from lreg_tui.runs.run_files import diagnosis_sentences, diagnosis_sheet
from lreg_tui.runs.run_notice import RunNotice
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.present import bar, clean, count, duration, progress, state_text
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.log_tail import MATCH, SEARCHED, LogTail, Searched
from lreg_tui.widgets.page_tabs import PageTabs, page_keys
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import Computing, off_the_loop, unless_busy
from lreg_tui.widgets.toml_area import TomlArea

AGES_EVERY_S = 20.0
TABS = ("curves", "preset", "log", "checkpoints", "transfers", "diagnosis")
FOCUSED = {"preset": "#preset", "diagnosis": "#diagnosis-sheets"}  # of pages with more than one widget


class RunScreen(ActingScreen, inherit_bindings=False):
    """One run. Its folder may be damaged, or go away while it is shown: the screen says so and stays."""

    CSS_PATH = "run_screen.tcss"
    AUTO_FOCUS = ""  # else a chart has it, where some keys of the run mean something else
    HELP_TITLE = "Run"
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *page_keys(TABS),
        bind("more", "turn(1)", "next page"),
        bind("less", "turn(-1)", "page before", show=False),
        bind("page_down", "turn(1)", "next page", show=False),
        bind("page_up", "turn(-1)", "page before", show=False),
        bind("full_screen", "full_screen"),
        bind("full_screen", "small", "leave full screen", "back to all panels"),
        bind("search", "search", tooltip="search the log, or the preset"),
        bind("edit", "edit", tooltip="a new run from this preset, edited"),
        *(ACTIONS[name] for name in ("stop_run", "pause_run", "continue_run", "resume_run", "transfer")),
        bind("compare", "compare", tooltip="compare the run with others, to be picked"),
        bind("back", "back", tooltip="to the screen before", priority=True),
        *(ACTIONS[name] for name in ("undo", "rename_run", "tag_run", "pin_run", "copy_id", "delete_run")),
    ]

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id
        self.tab = TABS[0]
        self.grid = MetricGrid(id="grid")
        self.row: RunRow | None = None
        self.files: run_files.Files | None = None
        self._said: tuple[RunRow | None, bool] | None = None  # what the head shows: the run, and whether it is gone

    def compose(self) -> ComposeResult:
        yield Static(head_of(None, self.run_id, False), id="head", markup=False)
        yield RunNotice(id="notice")
        yield PageTabs(TABS)
        with ContentSwitcher(initial="tab-curves"):
            with Vertical(id="tab-curves"):
                yield self.grid
                yield Static("no metrics yet", id="no-metrics", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self._look(self.lreg.feed.rows)
        self.set_interval(AGES_EVERY_S, lambda: self._fill("checkpoints"))  # ages grow, also of what does not change

    def subjects(self) -> Sequence[RunRow]:
        return [self.row] if self.row is not None else []

    def after_deleting(self, run_ids: Sequence[str]) -> None:
        self.dismiss()

    # -- what comes from the feed --------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        if self.row is not None:  # another screen may have followed other runs
            self.lreg.feed.follow({self.run_id: self.row.path})
            self._show_curves()

    def on_runs_changed(self, message: RunsChanged) -> None:
        self._look(message.rows)

    def on_series_changed(self, message: SeriesChanged) -> None:
        if self.tab == "curves" and self.run_id in message.run_ids:
            self._show_curves()

    def _look(self, rows: Sequence[RunRow]) -> None:
        row = next((row for row in rows if row.id == self.run_id), None)
        is_new = row is not None and self.row is None
        facts = (row or self.row, row is None and bool(self.row or rows))
        if facts != self._said:
            self.row, is_gone = self._said = facts
            self.query_one("#head", Static).update(head_of(self.row, self.run_id, is_gone))
            self.query_one(RunNotice).show_run(row)
            self.refresh_bindings()
        if row is not None and is_new:
            self.lreg.feed.follow({self.run_id: row.path})
            self._fill(self.tab)
            self.call_after_refresh(self._show_curves)  # nothing is told of records that another screen has had read
        self._read_files()

    # -- tabs ----------------------------------------------------------------------------------------------------------

    async def action_show_tab(self, tab: str) -> None:
        """A page is made when it is first looked at: a screen opens with one of six."""
        switcher = self.query_one(ContentSwitcher)
        if not switcher.query(f"#tab-{tab}"):
            await switcher.add_content(self._page(tab), id=f"tab-{tab}")
            self._fill(tab)
        self.tab, switcher.current = tab, f"tab-{tab}"
        self._show_tabs()
        if tab == "curves":
            self.set_focus(None)
            self._show_curves()
        else:
            self.query_one(FOCUSED.get(tab, f"#tab-{tab}")).focus()
        self.refresh_bindings()

    def _page(self, tab: str) -> Widget:
        if tab == "preset":
            return Vertical(Static(id="preset-problem", markup=False), PresetText(id="preset"))
        if tab == "log":
            return LogTail(lines=10_000)
        if tab == "diagnosis":
            return DiagnosisPane(data_dir=self.lreg.data_dir)
        nothing = {
            "checkpoints": "no checkpoint yet",
            "transfers": f"no transfer evaluation yet: {key_of('transfer')} asks for one",
        }
        return SheetView(nothing[tab])

    def _fill(self, tab: str) -> None:
        """Show on a page what is known by now, if there is the page."""
        if not self.query(f"#tab-{tab}"):
            return
        if tab == "preset":
            self._read_preset()
        elif tab == "log" and self.row is not None:
            self.query_one(LogTail).path = self.row.path / "log.txt"
        elif self.files is None:
            return
        elif tab == "checkpoints":
            self.query_one("#tab-checkpoints", SheetView).show(run_files.checkpoint_sheets(self.files))
        elif tab == "transfers":
            self.query_one("#tab-transfers", SheetView).show(self.files.results)
        elif tab == "diagnosis" and self.row is not None:
            path = self.row.path if "transfer" in self.row.kind.actions else None
            self.query_one(DiagnosisPane).show_diagnoses(path, self.files.diagnoses)

    def _show_tabs(self) -> None:
        grid, files = self.grid, self.files
        counts = {"curves": f"{grid.page + 1}/{grid.pages}" if grid.pages > 1 and self.tab == "curves" else ""}
        if files is not None:
            listed = {"checkpoints": files.checkpoints, "transfers": files.evaluations, "diagnosis": files.diagnoses}
            counts |= {tab: str(len(items)) if items else "" for tab, items in listed.items()}
        if self.query_one(PageTabs).show_page(self.tab, counts):
            self.refresh_bindings()

    def _show_curves(self) -> None:
        grid = self.grid
        if self.row is not None:
            grid.show_run(self.run_id, clean(self.row.name, 40), self.lreg.feed)
        grid.display = bool(grid.names)
        self.query_one("#no-metrics").display = not grid.names
        self._show_tabs()

    def on_metric_grid_paged(self) -> None:
        self._show_tabs()

    # -- files ---------------------------------------------------------------------------------------------------------

    @work(group="preset", exclusive=True)
    async def _read_preset(self) -> None:
        path = self.row.path if self.row is not None else self.lreg.store.root / self.run_id
        text, problem = await off_the_loop(lambda: run_files.preset_of(RunReader(path)), "preset")
        area = self.query_one(PresetText)
        if text != area.text:
            area.load_text(text)
        line = self.query_one("#preset-problem", Static)
        line.update(clean(problem, 600))
        line.display = bool(problem)

    @work(group="files")
    @unless_busy
    async def _read_files(self) -> None:
        """Read checkpoints and transfer evaluations where they have changed."""
        if self.row is None:
            return
        path, before = self.row.path, self.files
        files = await off_the_loop(lambda: run_files.files_of(RunReader(path), before), "files")
        if files is not before:
            self.files = files
            for tab in ("checkpoints", "transfers", "diagnosis"):
                self._fill(tab)
            self._show_tabs()

    def on_diagnosis_pane_added(self) -> None:
        self._read_files()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "edit":
            return self.row is not None and "edit" in self.row.kind.actions
        if action in ("turn", "full_screen", "small"):
            grid = self.grid
            fits = {"turn": grid.pages > 1, "full_screen": grid.names and not grid.is_zoomed, "small": grid.is_zoomed}
            return self.tab == "curves" and bool(fits[action])
        return super().check_action(action, parameters)

    def action_turn(self, by: int) -> None:
        self.grid.turn(by)

    def action_full_screen(self) -> None:
        self.grid.zoom()
        self._show_tabs()
        self.refresh_bindings()

    action_small = action_full_screen

    def action_edit(self) -> None:
        if self.row is not None:
            self.lreg.open_editor(str(self.row.path / "preset.toml"))

    @work(group="ask", exclusive=True)
    async def action_search(self) -> None:
        if self.tab != "preset":
            await self.action_show_tab("log")
        page: PresetText | LogTail
        page = self.query_one(PresetText) if self.tab == "preset" else self.query_one(LogTail)
        text = await self.app.push_screen_wait(PromptScreen("Search", page.searched, note="any part of a line"))
        if text is not None:
            lines = page.find(text)
            if text:
                going_on = f"{key_of('next')} and {key_of('previous')} go on"
                self.tell(f"{count(lines, 'line')}; {going_on}" if lines else "not found")

    def action_back(self) -> None:
        """One step: from a chart's cursor, from one panel to all, from a chart to the run, from here to the runs."""
        grid = self.grid
        if isinstance(self.focused, Chart) and self.focused.cursor_x is not None:
            self.focused.action_clear_cursor()
        elif self.tab == "curves" and grid.is_zoomed:
            self.action_full_screen()
        elif isinstance(self.focused, Chart):
            self.set_focus(None)
        else:
            self.dismiss()


class PresetText(Searched, TomlArea):
    """TOML in its colours, with search as a log has it."""

    HELP_TITLE = "Preset"
    BINDINGS = SEARCHED
    COMPONENT_CLASSES: ClassVar[set[str]] = {MATCH}
    DEFAULT_CSS = """
    PresetText > .searched--match { background: $accent; color: $background; }
    """


def head_of(row: RunRow | None, run_id: str, is_gone: bool) -> Text:
    """Two lines: who and how far, and what it is."""
    if row is None:
        return Text.assemble(
            (clean(run_id, 120), "bold"), "\n", ("no such run here" if is_gone else "looking …", "dim")
        )
    line = Text.assemble((clean(row.name, 60), "bold"), "  ", state_text(row.state))
    if is_gone:
        line.append("  its folder is gone", "bold red")
    if row.state != "finished":
        line.append("  ").append(bar(row.progress, 20))
    line.append(f" {progress(row.step, row.total)}")
    line.append(f"  ETA {duration(row.eta_s)}" if row.eta_s is not None else "")  # before what narrow screens cut off
    line.append(f"  {row.kind.unit} {row.step:>{len(str(row.total))}}/{row.total}" if row.total else "", "dim")
    estimator = "" if row.estimator == USUAL_ESTIMATOR else row.estimator
    learned = " ".join(filter(None, [row.optimizer, estimator, *row.penalties]))
    parts = [row.id, row.task, learned, "" if row.seed is None else f"seed {row.seed}", row.device]
    parts.append(" ".join(f"#{tag}" for tag in row.tags))
    line.append("\n").append("  ".join(clean(part, 80) for part in parts if part), "dim")
    return line


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
