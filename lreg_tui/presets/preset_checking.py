"""PresetCheckingScreen: a preset is picked and opened, its text checked while it changes, and the outcome shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.widgets import Static

from engine.base.errors import LregError
from engine.presets import catalog as catalogs
from engine.presets.catalog import Catalog
from lreg_tui.presets import preset_file, problem_lines
from lreg_tui.presets.pick_preset import PickPresetScreen
from lreg_tui.presets.preset_edit import Checked, Table, check, tables_of
from lreg_tui.presets.preset_form import PresetForm
from lreg_tui.presets.preset_saving import PresetSavingScreen
from lreg_tui.presets.problem_list import ProblemList
from lreg_tui.widgets.threads import off_the_loop, stop_if_gone
from lreg_tui.widgets.toml_area import TomlArea

if TYPE_CHECKING:
    from lreg_tui.runs.console_base import ConsoleBase

TYPING_PAUSE_S = 0.2  # a text is checked when nothing was typed for this long


class PresetCheckingScreen(PresetSavingScreen):
    """Of a screen with a PresetForm, a TomlArea, a ProblemList and a #title. `checked` is the newest answer."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: Checked | None = None
        self.catalog: Catalog | None = None

    @property
    def lreg(self) -> ConsoleBase:
        return self.app  # type: ignore[return-value]

    @property
    def listed(self) -> ProblemList:
        return self.query_one(ProblemList)

    @property
    def form(self) -> PresetForm:
        return self.query_one(PresetForm)

    @work(group="ask", exclusive=True)
    async def action_pick(self) -> None:
        if not await self._may_go("Take another preset?"):
            return
        offer = await self.app.push_screen_wait(PickPresetScreen(self.lreg.feed.rows))
        if offer is not None:
            self.open(offer.reference)
        elif self.draft is None:
            self.dismiss()

    @work(group="open", exclusive=True)
    async def open(self, reference: str) -> None:
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
        self.check_soon(0.0)

    @on(TomlArea.Changed)
    def _typed(self) -> None:
        if self.draft is not None:
            self._title()
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
        self.check_soon(0.0)


def _check(text: str, place: Path, catalog: Catalog) -> tuple[Checked, Sequence[Table]]:
    """What a text says, and as a form. Reads files: not for the loop."""
    checked = check(text, place, catalog)
    return checked, tables_of(checked, catalog)
