"""PresetEditorScreen: a preset as a form and as TOML, two views of one text that is checked while it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import OptionList, Static

from engine.base.errors import LregError, Problem
from lreg_tui.presets import problem_lines, toml_edit
from lreg_tui.presets.difference import DifferenceScreen, differences
from lreg_tui.presets.launch_run import LaunchScreen
from lreg_tui.presets.pick_preset import run_choices
from lreg_tui.presets.preset_checking import PresetCheckingScreen
from lreg_tui.presets.preset_edit import HERE
from lreg_tui.presets.preset_form import PresetForm
from lreg_tui.presets.problem_list import ProblemList
from lreg_tui.presets.toml_lines import line_of
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.threads import off_the_loop
from lreg_tui.widgets.toml_area import TomlArea

NAME = "preset_editor"  # in what the console remembers
WIDE = 120  # columns from which form and TOML stand side by side


class PresetEditorScreen(PresetCheckingScreen):
    """Opens on a shipped preset's name or a file's path; without one it asks. The TomlArea's text is the preset."""

    CSS_PATH = "preset_editor.tcss"
    HELP_TITLE = "Preset"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l,f5", "launch", "launch", priority=True, tooltip="start a run with these settings"),
        Binding("ctrl+s", "save", "save", priority=True, tooltip="write the preset to its file"),
        Binding("ctrl+t", "other_view", "form/TOML", priority=True, tooltip="the same preset in the other view"),
        Binding(
            "ctrl+r",
            "difference",
            "changes",
            priority=True,
            tooltip="what differs from the file, and from where it began",
        ),
        Binding("escape", "leave", "back", tooltip="leave the editor; asks before edits are lost"),
        Binding("f8", "next_problem", "next problem", priority=True, tooltip="go where the next problem is"),
        Binding("ctrl+o", "save_as", "save as", priority=True, tooltip="write the preset to another file"),
        Binding("delete,backspace", "in_form('reset')", "reset", key_display="del", tooltip="take a key out again"),
        Binding("a", "in_form('add_penalty')", "add penalty", tooltip="add a penalty's table to the preset"),
        Binding(
            "o", "in_form('only_here')", "only set", tooltip="list only what the text says itself, and what is wrong"
        ),
        Binding("n", "pick", "another preset", tooltip="begin with another preset"),
        Binding("q", "app.quit", show=False),
    ]

    def __init__(self, preset: str = "") -> None:
        super().__init__()
        self.reference = preset

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Horizontal(id="views"):
            yield PresetForm(id="form")
            yield TomlArea(id="toml")
        yield ProblemList(id="problems")
        yield KeyFooter()

    def on_mount(self) -> None:
        self.set_class(self.lreg.remembered.view(NAME).get("toml") is True, "-toml")
        (self.area if self.has_class("-toml") else self.form.listed).focus()
        fresh = Choice("", "a fresh learned optimizer")
        self.form.offers = {"meta.init_from": [fresh, *run_choices(self.lreg.feed.rows)]}
        if self.reference:
            self.open(self.reference)
        else:
            self.action_pick()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "-wide")

    # -- changing ------------------------------------------------------------------------------------------------------

    @on(PresetForm.ValueSet)
    def _set_value(self, event: PresetForm.ValueSet) -> None:
        self._edit(lambda text: toml_edit.set_value(text, event.path, event.raw))

    @on(PresetForm.PenaltyAdded)
    def _add_penalty(self, event: PresetForm.PenaltyAdded) -> None:
        if self._edit(lambda text: toml_edit.add_table(text, f"penalty.{event.name}")):
            self.call_after_refresh(self.form.highlight, f"penalty.{event.name}")

    @on(PresetForm.Removed)
    def _remove(self, event: PresetForm.Removed) -> None:
        origin = self.checked.origin(event.path) if self.checked is not None else ""
        if origin == HERE:
            self._edit(lambda text: toml_edit.remove(text, event.path))
        elif origin and event.path.count(".") == 1 and event.path.startswith("penalty."):
            self._tell(f"{event.path} is inherited from {origin}: weight = 0 makes it count nothing", "warning")
        else:
            self._tell(f"{event.path} is not set here: there is nothing to take away")

    def _edit(self, change: Callable[[str], str]) -> bool:
        """Change the text; the check that follows changes the form."""
        try:
            self.area.take(change(self.area.text))
        except LregError as error:
            self._tell(str(error), "error")
            return False
        self.check_soon(0.0)
        return True

    # -- looking -------------------------------------------------------------------------------------------------------

    def action_other_view(self) -> None:
        """Show the other view, or where both are in view, go to it."""
        to_toml = not self.has_class("-toml")
        self.set_class(to_toml, "-toml")
        self.lreg.remember(NAME, toml=to_toml)
        path = self.form.current.removeprefix("table:")
        if to_toml:
            line = line_of(self.area.text, path) if path else None
            if line is not None:
                self.area.go_to(line)
            self.area.focus()
        else:
            self.form.listed.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "next_problem":
            return bool(self.listed.problems)
        return self.form.listed.has_focus if action in ("in_form", "pick") else True

    def action_in_form(self, action: str) -> None:
        """A key of the form, which stands here so that the footer shows what matters more before it."""
        getattr(self.form, f"action_{action}")()

    def action_next_problem(self) -> None:
        self._go_to(self.listed.next())

    @on(OptionList.OptionSelected, "#problems")
    def _problem_selected(self, event: OptionList.OptionSelected) -> None:
        self._go_to(self.listed.go_to(event.option_index))

    def _go_to(self, problem: Problem) -> None:
        """Put the cursors of both views where a problem is."""
        line = problem_lines.place_of(problem, self.area.text)
        if line is not None:
            self.area.go_to(line)
        self.form.highlight(problem.path)
        (self.area if self.has_class("-toml") else self.form.listed).focus()

    @work(group="ask", exclusive=True)
    async def action_difference(self) -> None:
        draft, checked, catalog = self.draft, await self.check_now(), self.catalog
        if draft is None or checked is None or catalog is None:
            return
        found = await off_the_loop(lambda: differences(draft, checked, catalog), "difference")
        await self.app.push_screen_wait(DifferenceScreen(found))

    # -- launching -----------------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_launch(self) -> None:
        checked = await self.check_now()
        if checked is None:
            self._tell("the settings are still being read", "warning")
        elif checked.preset is None:
            self._tell("not launched: the preset has problems", "error")
            self._go_to(self.listed.go_to(0))
        else:
            note = "Not saved: the run keeps its own copy of every setting." if self.is_unsaved else ""
            lreg = self.lreg
            asked = LaunchScreen(checked.preset, lreg.store, lreg.data_dir, note)
            run_id = await self.app.push_screen_wait(asked)
            if run_id is not None:
                self._launched(run_id)

    def _launched(self, run_id: str) -> None:
        self._tell(f"started {run_id}")
        while len(self.app.screen_stack) > 2:  # the dashboard is above the blank screen that Textual begins with
            self.app.pop_screen()
        if isinstance(below := self.app.screen, DashboardScreen):
            below.table.select(run_id)
        self.lreg.feed.look_now()
