"""PickPresetScreen: which preset a new run begins with: a shipped one, a file of this folder, or a run's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from lreg_tui.presets import offers
from lreg_tui.presets.offers import Offer
from lreg_tui.presets.picking import PickingScreen
from lreg_tui.presets.preset_file import on_disk
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.threads import off_the_loop
from lreg_tui.widgets.toml_area import TomlArea

if TYPE_CHECKING:
    from lreg_tui.runs.feed import RunRow


class PickPresetScreen(PickingScreen):
    """Where there is room, the text of the highlighted preset stands beside the list."""

    HEADING = "New run: which preset?"
    NAME_WIDTH = 26
    DEFAULT_CSS = """
    PickPresetScreen {
        & > Vertical { max-width: 170; }
        #offers { layout: horizontal; }
        OptionList { width: 3fr; }
        TomlArea { width: 2fr; height: 1fr; margin-left: 2; background: $surface; }
    }
    """

    def find(self) -> Iterable[Offer]:
        return offers.presets(self.folder, self.rows)

    def preview(self) -> TomlArea:
        area = TomlArea(read_only=True)
        area.can_focus, area.show_cursor = False, False
        return area

    def on_resize(self) -> None:
        self.query_one(TomlArea).display = self.size.width >= 110

    def show(self, offer: Offer) -> None:
        if self.query_one(TomlArea).display:
            self._read(offer.path)

    @work(group="preview", exclusive=True)
    async def _read(self, path: Path) -> None:
        text = await off_the_loop(lambda: on_disk(path), "preset")
        self.query_one(TomlArea).load_text(text if text is not None else "# cannot be read")


def run_choices(rows: Sequence[RunRow]) -> list[Choice]:
    """The runs that a run can start from, newest first."""
    runs = [row for row in reversed(rows) if "edit" in row.kind.actions]
    return [Choice(row.id, row.name, f"{row.id}  {row.optimizer} {' '.join(row.penalties)}") for row in runs]
