"""PresetSavingScreen: what the preset editor does with files: save, save as, and ask before edits are lost."""

from __future__ import annotations

import os
from pathlib import Path

from textual import work
from textual.screen import Screen

from engine.base.errors import LregError
from lreg_tui.presets import preset_file
from lreg_tui.presets.preset_file import Draft
from lreg_tui.text.present import clean
from lreg_tui.widgets.confirm import ConfirmScreen
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.prompt import PromptScreen
from lreg_tui.widgets.threads import off_the_loop
from lreg_tui.widgets.toml_area import TomlArea


class PresetSavingScreen(Ending, Screen[None]):
    """The text is that of the screen's TomlArea."""

    def __init__(self) -> None:
        super().__init__()
        self.draft: Draft | None = None
        self.kept = ""  # the text as it is in its file, or as it was taken

    @property
    def area(self) -> TomlArea:
        return self.query_one(TomlArea)

    @property
    def is_unsaved(self) -> bool:
        return self.draft is not None and self.area.text != self.kept

    def saved(self) -> None:
        """Called when the text has been written to the draft's file."""

    @work(group="ask", exclusive=True)
    async def action_save(self) -> None:
        draft = self.draft
        if draft is None:
            return
        if draft.file is None:
            await self._save_as(draft)
            return
        there = await off_the_loop(lambda: preset_file.on_disk(draft.file), "preset")
        question = f"{draft.file.name} has changed on the disk. Overwrite it?"
        if there in (None, self.kept, draft.text) or await self._agree(question, "overwrite"):
            await self._write(draft, self.area.text)

    @work(group="ask", exclusive=True)
    async def action_save_as(self) -> None:
        if self.draft is not None:
            await self._save_as(self.draft)

    async def _save_as(self, draft: Draft) -> None:
        proposed = preset_file.free_name(draft, self.area.text, Path())
        asked = PromptScreen("Save as", proposed, check=lambda name: preset_file.refusal(preset_file.target(name)))
        name = await self.app.push_screen_wait(asked)
        if name is None:
            return
        path = preset_file.target(name)
        if not os.path.lexists(path) or await self._agree(f"{path.name} is there already. Overwrite it?", "overwrite"):
            text = preset_file.moved(self.area.text, draft.place, path)
            await self._write(Draft(draft.text, path, path, draft.taken_from), text)

    async def _write(self, draft: Draft, text: str) -> None:
        try:
            await off_the_loop(lambda: preset_file.save(text, draft.place), "save")
        except LregError as error:
            self._tell(str(error), "error")
            return
        self.draft = draft
        self.area.take(text)
        self.kept = self.area.text
        self._tell(f"saved {draft.place}")
        self.saved()

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
        return await self._agree(question, "leave", f"{self.draft.title} has edits that are in no file.")

    async def _agree(self, question: str, yes: str, note: str = "") -> bool:
        return await self.app.push_screen_wait(ConfirmScreen(question, note=note, yes=yes))

    def _tell(self, message: str, severity: str = "information") -> None:
        self.app.notify(clean(message, 400), severity=severity, markup=False)  # type: ignore[arg-type]
