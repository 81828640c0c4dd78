"""PresetEditorScreen: a preset as a form and as TOML, two views of one text that is checked while it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, OptionList, Static

from engine import catalog as catalogs
from engine.catalog import Catalog
from engine.errors import LregError, Problem
from lreg_tui import preset_file, problem_lines, toml_edit
from lreg_tui.preset_edit import HERE, Checked, Table, check, tables_of
from lreg_tui.screens.difference import DifferenceScreen, differences
from lreg_tui.screens.launch_run import LaunchScreen
from lreg_tui.screens.pick_preset import PickPresetScreen, run_choices
from lreg_tui.screens.preset_saving import PresetSavingScreen
from lreg_tui.threads import off_the_loop
from lreg_tui.toml_lines import line_of
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.preset_form import PresetForm
from lreg_tui.widgets.problem_list import ProblemList
from lreg_tui.widgets.toml_area import TomlArea

if TYPE_CHECKING:
    from lreg_tui.console import LregApp

TYPING_PAUSE_S = 0.2  # a text is checked when nothing was typed for this long
NAME = "preset_editor"  # in what the console remembers
WIDE = 120  # columns from which form and TOML stand side by side


class PresetEditorScreen(PresetSavingScreen):
    """Opens on a shipped preset's name or a file's path; without one it asks. The TomlArea's text is the preset."""

    CSS_PATH = "preset_editor.tcss"
    HELP_TITLE = "Preset"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l,f5", "launch", "launch", priority=True),
        Binding("ctrl+s", "save", "save", priority=True),
        Binding("ctrl+t", "other_view", "form/TOML", priority=True),
        Binding("ctrl+r", "difference", "changes", priority=True, tooltip="since it was saved, since it was taken"),
        Binding("escape", "leave", "back"),
        Binding("f8", "next_problem", "next problem", priority=True),
        Binding("ctrl+o", "save_as", "save as", priority=True),
        Binding("delete,backspace", "in_form('reset')", "reset", key_display="del", tooltip="take a key out again"),
        Binding("a", "in_form('add_penalty')", "add penalty"),
        Binding("o", "in_form('only_here')", "only set", tooltip="only what the text says itself, and what is wrong"),
        Binding("n", "pick", "another preset"),
        Binding("q", "app.quit", show=False),
    ]

    def __init__(self, preset: str = "") -> None:
        super().__init__()
        self.reference = preset
        self.checked: Checked | None = None
        self.catalog: Catalog | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Horizontal(id="views"):
            yield PresetForm(id="form")
            yield TomlArea(id="toml")
        yield ProblemList(id="problems")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.set_class(self.lreg.remembered.view(NAME).get("toml") is True, "-toml")
        (self.area if self.has_class("-toml") else self.form.listed).focus()
        fresh = Choice("", "a fresh learned optimizer")
        self.form.offers = {"meta.init_from": [fresh, *run_choices(self.lreg.feed.rows)]}
        if self.reference:
            self._open(self.reference)
        else:
            self.action_pick()

    @property
    def lreg(self) -> LregApp:
        return self.app  # type: ignore[return-value]

    @property
    def listed(self) -> ProblemList:
        return self.query_one(ProblemList)

    @property
    def form(self) -> PresetForm:
        return self.query_one(PresetForm)

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "-wide")

    # -- opening and checking ------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_pick(self) -> None:
        if not await self._may_go("Take another preset?"):
            return
        reference = await self.app.push_screen_wait(PickPresetScreen(self.lreg.feed.rows))
        if reference is not None:
            self._open(reference)
        elif self.draft is None:
            self.dismiss()

    @work(group="open", exclusive=True)
    async def _open(self, reference: str) -> None:
        try:
            draft = await off_the_loop(lambda: preset_file.take_up(reference), "preset")
        except LregError as error:
            self._tell(str(error), "error")
            if self.draft is None:
                self.action_pick()
            return
        self.draft, self.checked = draft, None
        self.area.load_text(draft.text)
        self.kept = self.area.text
        self._title()
        try:
            self.catalog = await off_the_loop(catalogs.load, "catalog")
        except LregError as error:
            self._tell(str(error), "error")
            return
        self._check(0.0)

    @on(TomlArea.Changed)
    def _typed(self) -> None:
        if self.draft is not None:
            self._title()
            self._check(TYPING_PAUSE_S)

    @work(group="check", exclusive=True)
    async def _check(self, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._check_now()

    async def _check_now(self) -> Checked | None:
        """Check the text as it is now, and show what came of it."""
        if self.catalog is None or self.draft is None:
            return None
        catalog, text, place = self.catalog, self.area.text, self.draft.place
        if self.checked is None or (self.checked.text, self.checked.place) != (text, place):
            checked, tables = await off_the_loop(lambda: _check(text, place, catalog), "check")
            self.checked = checked
            self._show(checked, tables, catalog)
        return self.checked

    def _show(self, checked: Checked, tables: Sequence[Table], catalog: Catalog) -> None:
        if checked.parses:
            penalties = checked.document.values.get("penalty")
            known = penalties if isinstance(penalties, dict) else {}
            self.form.show(tables, [name for name in catalog.penalties if name not in known])
        lines = [problem_lines.place_of(problem, checked.text) for problem in checked.problems]
        self.area.wrong_lines = frozenset(line for line in lines if line is not None)
        had_problems = bool(self.listed.problems)
        if checked.problems != self.listed.problems:
            self.listed.show(checked.problems)
        if had_problems != bool(checked.problems):
            self.refresh_bindings()
        self._title()

    def _title(self) -> None:
        """Name, where it comes from, whether it is saved, whether it is right."""
        if self.draft is None:
            return
        title = problem_lines.title(self.draft, self.is_unsaved, self.checked)
        self.query_one("#title", Static).update(title)

    def saved(self) -> None:
        self._title()
        self._check(0.0)

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
        self._check(0.0)
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
        draft, checked, catalog = self.draft, await self._check_now(), self.catalog
        if draft is None or checked is None or catalog is None:
            return
        found = await off_the_loop(lambda: differences(draft, checked, catalog), "difference")
        await self.app.push_screen_wait(DifferenceScreen(found))

    # -- launching -----------------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_launch(self) -> None:
        checked = await self._check_now()
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
        self.lreg.feed.look_now()
        while len(self.app.screen_stack) > 2:  # the dashboard is above the blank screen that Textual begins with
            self.app.pop_screen()


def _check(text: str, place: Path, catalog: Catalog) -> tuple[Checked, Sequence[Table]]:
    """What a text says, and as a form. Reads files: not for the loop."""
    checked = check(text, place, catalog)
    return checked, tables_of(checked, catalog)
