"""ReportScreen: the report of a study, and where it lies, so that its figures can be opened."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Markdown, Static

from engine.base.files import read_limited
from lreg_tui.text.present import clean, clean_block
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.threads import off_the_loop

LARGEST = 2**20  # bytes


class ReportScreen(Ending, Screen[None]):
    """The file may have been written by strangers, and is only read: no link in it leads anywhere."""

    HELP_TITLE = "Report"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("copy", "copy_path", "copy path", "copy where the report lies to the clipboard"),
        bind("back", "leave", tooltip="to the screen before"),
    ]
    DEFAULT_CSS = """
    ReportScreen {
        #where { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        VerticalScroll { height: 1fr; scrollbar-size: 1 1; }
        Markdown { background: $background; }
    }
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def compose(self) -> ComposeResult:
        yield Static(clean(self.path), id="where", markup=False)
        with VerticalScroll():
            yield Markdown("reading …", open_links=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        self._read()

    @work(group="report")
    async def _read(self) -> None:
        text = await off_the_loop(lambda: text_of(self.path), "report")
        await self.query_one(Markdown).update(text)

    def action_copy_path(self) -> None:
        self.app.copy_to_clipboard(clean(self.path))
        self.app.notify(f"copied {clean(self.path, 200)}", markup=False)

    def action_leave(self) -> None:
        self.dismiss()


def text_of(path: Path) -> str:
    try:
        return clean_block(read_limited(path, LARGEST, path.parent.parent).decode(errors="replace"))
    except OSError as error:
        return f"{clean(path)}: cannot be read: {clean(error.strerror or error)}"
