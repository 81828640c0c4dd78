"""PresetEditorScreen: a preset as a form and as TOML, two views of one text that is checked while it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import OptionList, Static

from engine.base.errors import LregError
from engine.presets import catalog as catalogs
from engine.presets.catalog import NAMED_TABLES, Catalog
from lreg_tui.presets import picking, preset_edit
from lreg_tui.presets.picking import PickPresetScreen, launching
from lreg_tui.presets.preset_edit import Checked, Draft, FormTable, addable, check, in_todays_form, tables_of
from lreg_tui.presets.preset_form import MUTED, PresetForm
from lreg_tui.presets.problem_list import DifferenceScreen, ProblemList, differences, lines_with
from lreg_tui.presets.toml_edit import lines_of
from lreg_tui.runs.console_base import ConsoleScreen
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.text.present import clean, count
from lreg_tui.widgets.dialog import ConfirmScreen, PromptScreen
from lreg_tui.widgets.keys import KeyFooter, bind
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop, stop_if_gone
from lreg_tui.widgets.toml_area import TomlArea

ANOTHER = "another preset"  # beside what can be added to this one
NAME = "preset_editor"  # in what the console remembers
WIDE = 120  # columns from which form and TOML stand side by side
TYPING_PAUSE_S = 0.2  # a text is checked when nothing was typed for this long


class PresetEditorScreen(ConsoleScreen):
    """Opens on a shipped preset's name or a file's path; without one it asks. The TomlArea's text is the preset."""

    CSS_PATH = "preset_editor.tcss"
    HELP_TITLE = "Preset"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("start", "launch", "launch", "start a run with these settings", priority=True),
        bind("save", "save", tooltip="write the preset to its file", keys="ctrl+s", priority=True),
        bind("other_view", "other_view", "form/TOML", "the same preset in the other view", priority=True),
        bind("changes", "difference", tooltip="what differs from the file, and from where it began", priority=True),
        bind("back", "leave", tooltip="leave the editor; asks before edits are lost"),
        bind("next_problem", "next_problem", tooltip="go where the next problem is", priority=True),
        bind("save_as", "save_as", tooltip="write the preset to another file", priority=True),
        bind("save", "save", tooltip="write the preset to its file", keys="w", show=False),
        bind("take_back", "in_form('reset')", "unset", "take a key out again"),
        bind("add", "add", "add", "a penalty or a term, or begin with another preset"),
        bind("differing", "in_form('only_here')", "only set", "list only what the text says itself, and what is wrong"),
    ]

    def __init__(self, preset: str = "") -> None:
        super().__init__()
        self.reference = preset
        self.draft: Draft | None = None
        self.saved_text = ""  # the text as it is in its file, or as it was taken
        self.checked: Checked | None = None  # the newest answer
        self.catalog: Catalog | None = None
        self.goes_to = ""  # where the form's cursor goes when it shows what was edited
        self.form, self.area, self.problems = PresetForm(id="form"), TomlArea(id="toml"), ProblemList(id="problems")

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Horizontal(id="views"):
            yield self.form
            yield self.area
        yield self.problems
        yield KeyFooter()

    def on_mount(self) -> None:
        self.set_class(self.lreg.remembered.view(NAME).get("toml") is True, "-toml")
        (self.area if self.has_class("-toml") else self.form.listed).focus()
        runs = [row for row in reversed(self.lreg.feed.rows) if "edit" in row.kind.actions]
        choices = [Choice(row.id, row.name, f"{row.id}  {row.optimizer} {' '.join(row.penalties)}") for row in runs]
        self.form.offers = {"meta.init_from": [Choice("", "a fresh learned optimizer"), *choices]}
        if self.reference:
            self.open(self.reference)
        else:
            self.pick_preset()

    @property
    def is_unsaved(self) -> bool:
        return self.draft is not None and self.area.text != self.saved_text

    # -- opening and checking ------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def pick_preset(self) -> None:
        await self._pick_preset()

    async def _pick_preset(self) -> None:
        if not await self._may_go("Take another preset?"):
            return
        rows = self.lreg.feed.rows
        offer = await PickPresetScreen.ask(self.app, lambda: picking.presets(Path(), rows))
        if offer is not None:
            self.open(offer.reference)
        elif self.draft is None:
            self.dismiss()

    @work(group="open", exclusive=True)
    async def open(self, reference: str) -> None:
        try:
            draft = await off_the_loop(lambda: preset_edit.take_up(reference), "preset")
        except LregError as error:
            self.tell(str(error), "error")
            if self.draft is None:
                self.pick_preset()
            return
        self.draft, self.checked = draft, None
        self.area.load_text(draft.text)
        self.saved_text = self.area.text
        self._show_title()
        try:
            self.catalog = await off_the_loop(catalogs.load, "catalog")
        except LregError as error:
            self.tell(str(error), "error")
            return
        self.check_soon(0.0)

    @on(TomlArea.Changed)
    def _typed(self) -> None:
        if self.draft is not None:
            self._show_title()
            self.check_soon(TYPING_PAUSE_S)

    @work(group="check", exclusive=True)
    async def check_soon(self, pause: float) -> None:
        await asyncio.sleep(pause)
        stop_if_gone()
        await self.check_now()

    async def check_now(self) -> Checked | None:
        """Check the text as it is now, and show what came of it."""
        if self.catalog is None or self.draft is None:
            return None
        catalog, text, path = self.catalog, self.area.text, self.draft.path
        if self.checked is None or (self.checked.text, self.checked.path) != (text, path):
            checked, tables, lines = await off_the_loop(lambda: _check(text, path, catalog), "check")
            self.checked = checked
            self._show(checked, tables, catalog)
            self.area.wrong_lines = lines
        return self.checked

    def _show(self, checked: Checked, tables: Sequence[FormTable], catalog: Catalog) -> None:
        if checked.parses:
            self.form.show(tables, addable(checked, catalog))
            if self.goes_to:
                self.form.highlight(self.goes_to)
                self.goes_to = ""
        self.problems.show(checked.problems)
        self.refresh_bindings()
        self._show_title()

    def _show_title(self) -> None:
        """What is edited, whether it is saved, whether it is right, and where it comes from or lives."""
        if (draft := self.draft) is None:
            return
        parts = [(clean(draft.title, 40), "bold")]
        parts += [("  ● unsaved", "$accent")] if self.is_unsaved else []
        problems = len(self.checked.problems) if self.checked is not None else 0
        if self.checked is None:
            parts.append(("  checking …", MUTED))
        elif problems:
            parts.append((f"  ✗ {count(problems, 'problem')}", "$error bold"))
        else:
            parts.append(("  ✓ valid", "$success"))
        where = f"from {draft.taken_from}" if draft.file is None else str(draft.file)
        parts.append((f"  {clean(where, 100)}", MUTED))  # last: narrow screens cut it off
        self.query_one("#title", Static).update(Content.assemble(*parts))

    # -- changing and looking ------------------------------------------------------------------------------------------

    @on(PresetForm.Edited)
    def _edit(self, event: PresetForm.Edited) -> None:
        """Change the text; the check that follows changes the form."""
        try:
            self.area.take(event.change(in_todays_form(self.area.text, self.checked)))
        except LregError as error:
            self.tell(str(error), "error")
            return
        self.goes_to = event.path
        self.check_soon(0.0)

    def action_other_view(self) -> None:
        """Show the other view, or where both are in view, go to it."""
        to_toml = not self.has_class("-toml")
        self.set_class(to_toml, "-toml")
        self.lreg.remember(NAME, toml=to_toml)
        path = self.form.current.removeprefix("table:")
        if to_toml:
            line = lines_of(self.area.text, [path]).get(path) if path else None
            if line is not None:
                self.area.go_to(line)
            self.area.focus()
        else:
            self.form.listed.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "next_problem":
            return bool(self.problems.problems)
        return self.form.listed.has_focus if action in ("in_form", "add") else True

    def action_in_form(self, action: str) -> None:
        """A key of the form, which stands here so that the footer shows what matters more before it."""
        getattr(self.form, f"action_{action}")()

    @work(group="ask", exclusive=True)
    async def action_add(self) -> None:
        """A penalty or a term, where there are such that are not in the preset; or begin with another preset."""
        of_sections = ((section, words, self.form.addable.get(section, ())) for section, words in NAMED_TABLES.items())
        choices = [Choice(f"{section}.{name}", name, words) for section, words, names in of_sections for name in names]
        choices.append(Choice(ANOTHER, ANOTHER, "begin with that one"))
        picked = await self.app.push_screen_wait(PickList("add", choices))
        if picked and picked[0] != ANOTHER:
            self.form.add_table(picked[0])
        elif picked:
            await self._pick_preset()

    def action_next_problem(self) -> None:
        self.problems.next()
        self._go_to_problem()

    @on(OptionList.OptionSelected, "#problems")
    def _problem_selected(self, event: OptionList.OptionSelected) -> None:
        self.problems.go_to(event.option_index)
        self._go_to_problem()

    def _go_to_problem(self) -> None:
        """Put the cursors of both views where the highlighted problem is."""
        problem = self.problems.problems[self.problems.highlighted or 0]
        (line,) = lines_with([problem], self.area.text)
        if line is not None:
            self.area.go_to(line)
        self.form.highlight(problem.path)
        (self.area if self.has_class("-toml") else self.form.listed).focus()

    @work(group="ask", exclusive=True)
    async def action_difference(self) -> None:
        draft, checked, catalog = self.draft, await self.check_now(), self.catalog
        if draft is not None and checked is not None and catalog is not None:
            content = await off_the_loop(lambda: differences(draft, checked, catalog), "difference")
            await self.app.push_screen_wait(DifferenceScreen(content))

    # -- saving --------------------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_save(self) -> None:
        draft = self.draft
        if draft is None:
            return
        if draft.file is None:
            await self._save_as(draft)
            return
        on_disk = await off_the_loop(lambda: preset_edit.on_disk(draft.file), "preset")
        question = f"{draft.file.name} has changed on the disk. Overwrite it?"
        if on_disk in (None, self.saved_text, draft.text) or await self.agree(question, "overwrite"):
            await self._write(draft, self.area.text)

    @work(group="ask", exclusive=True)
    async def action_save_as(self) -> None:
        if self.draft is not None:
            await self._save_as(self.draft)

    async def _save_as(self, draft: Draft) -> None:
        proposed = preset_edit.free_name(draft, self.area.text, Path())
        prompt = PromptScreen("Save as", proposed, check=lambda name: preset_edit.refusal(preset_edit.target(name)))
        name = await self.app.push_screen_wait(prompt)
        if name is None:
            return
        path = preset_edit.target(name)
        if not os.path.lexists(path) or await self.agree(f"{path.name} is there already. Overwrite it?", "overwrite"):
            text = preset_edit.moved(self.area.text, draft.path, path)
            await self._write(Draft(draft.text, path, path, draft.taken_from), text)

    async def _write(self, draft: Draft, text: str) -> None:
        try:
            await off_the_loop(lambda: preset_edit.save(text, draft.path), "save")
        except LregError as error:
            self.tell(str(error), "error")
            return
        self.draft = draft
        self.area.take(text)
        self.saved_text = self.area.text
        self.tell(f"saved {draft.path}")
        self._show_title()
        self.check_soon(0.0)

    # -- leaving -------------------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_leave(self) -> None:
        if await self._may_go("Leave without saving?"):
            self.dismiss()

    def keeps_from_quitting(self) -> bool:
        """True where edits would be lost; then the user is asked."""
        if self.is_unsaved and not isinstance(self.app.screen, ConfirmScreen):
            self._ask_to_quit()
        return self.is_unsaved

    @work(group="quit", exclusive=True)
    async def _ask_to_quit(self) -> None:
        if await self._may_go("Quit without saving?"):
            self.app.exit()

    async def _may_go(self, question: str) -> bool:
        """True if nothing would be lost, or the user agrees to lose it."""
        if self.draft is None or not self.is_unsaved:
            return True
        return await self.agree(question, "leave", f"{self.draft.title} has edits that are in no file.")

    @work(group="ask", exclusive=True)
    async def action_launch(self) -> None:
        checked = await self.check_now()
        if checked is None:
            self.tell("the settings are still being read", "warning")
        elif checked.preset is None:
            self.tell("not launched: the preset has problems", "error")
            self.problems.go_to(0)
            self._go_to_problem()
        else:
            note = "Unsaved: the run keeps its own copy of every setting." if self.is_unsaved else ""
            screen = launching(checked.preset, self.lreg.store, self.lreg.data_dir, note)
            run_id = await self.app.push_screen_wait(screen)
            if run_id is None:
                return
            self.tell(f"started {run_id}")
            while len(self.app.screen_stack) > 1:
                self.app.pop_screen()
            if isinstance(below := self.app.screen, DashboardScreen):
                below.table.select(run_id)
            self.lreg.feed.look_now()


def _check(text: str, path: Path, catalog: Catalog) -> tuple[Checked, Sequence[FormTable], frozenset[int]]:
    """What a text says, as a form, and its lines with problems. Reads files: not for the loop."""
    checked = check(text, path, catalog)
    lines = lines_with(checked.problems, text)
    return checked, tables_of(checked, catalog), frozenset(line for line in lines if line is not None)
