"""LogTail: the end of a log, live: plain text, at the newest line unless scrolled up, with search.

tail = LogTail(lines=500)
tail.path = reader.log_path  # may change at any time; None shows nothing
tail.find("nan")  # marks every match and goes to the last one; keys go on from there
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from lreg_tui.text.log_file import LOCAL_STAMP, LogFile, Look, with_local_time, with_short_time
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.threads import off_the_loop

LOOK_EVERY_S = 0.5


class LogTail(ScrollView, can_focus=True):
    """The last lines of the log at `path`, followed while the end is in view."""

    HELP_TITLE = "Log"
    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("follow", "follow", tooltip="the end of the log, and follow it", show=False),
        bind("last", "follow", tooltip="the end of the log, and follow it", show=False),
        bind("next", "go_to_match(1)", tooltip="the next match, towards the end"),
        bind("previous", "go_to_match(-1)", tooltip="the match before, towards the beginning"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log-tail--time", "log-tail--match", "log-tail--error"}
    DEFAULT_CSS = """
    LogTail {
        scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
        scrollbar-color: $foreground 25%; scrollbar-background: $surface;
        color: $text;
        & > .log-tail--time { color: $text-muted; }
        & > .log-tail--match { background: $accent; color: $background; }
        & > .log-tail--error { color: $text-error; }
    }
    """

    path: reactive[Path | None] = reactive(None, init=False)

    def __init__(
        self,
        path: Path | None = None,
        *,
        lines: int = 1000,
        short_times: bool = False,
        id: str | None = None,
    ) -> None:
        """`short_times`: of a time stamp only the time is shown, and its zone."""
        super().__init__(id=id)
        self.most_lines = lines
        self.short_times = short_times
        self.lines: Sequence[str] = ()
        self.searched = ""
        self._log: LogFile | None = None
        self._shown: LogFile | None = None  # whose lines those are
        self._is_looking = False
        self._match = -1  # line of the match that was gone to
        self.set_reactive(LogTail.path, path)

    @property
    def allow_select(self) -> bool:
        return True

    @property
    def follows(self) -> bool:
        """True while the newest line is in view."""
        return self.is_vertical_scroll_end

    def on_mount(self) -> None:
        self.watch_path()
        self.set_interval(LOOK_EVERY_S, self.look)

    def watch_path(self) -> None:
        self._log = LogFile(self.path, self.most_lines) if self.path is not None else None
        self._match = -1
        if self._log is None:
            self._show(Look((), 0))
        self.look()

    def on_show(self) -> None:
        self.look()

    def look(self) -> None:
        """Read what is new, unless nobody sees it or it is being read."""
        if self._log is not None and not self._is_looking and self.display and self.size:
            self._is_looking = True
            self._look(self._log)

    @work(group="log")
    async def _look(self, log: LogFile) -> None:
        try:
            found = await off_the_loop(log.look, "log")
        finally:
            self._is_looking = False
        if log is not self._log:  # another log has been chosen meanwhile, and waits
            self.look()
        elif found is not None:
            self._show(found)

    def _show(self, found: Look) -> None:
        follows = self.follows or self._shown is not self._log or found.gone >= len(self.lines)
        self._shown = self._log
        shown = with_short_time if self.short_times else with_local_time
        self.lines = [shown(line) for line in found.lines]
        self._match = max(-1, self._match - found.gone)
        self.virtual_size = Size(max(map(cell_len, self.lines), default=0), len(self.lines))
        if follows:
            self.scroll_end(animate=False, immediate=True, force=True, x_axis=False)
        elif found.gone:
            self.scroll_to(y=max(0, self.scroll_offset.y - found.gone), animate=False, force=True)
        self.refresh()

    # -- search ------------------------------------------------------------------------------------------------------

    def find(self, text: str) -> int:
        """Mark every line part that is this text, whatever its case, and go to the newest. Returns how many lines."""
        self.searched = text
        self._match = len(self.lines)
        count = sum(self._is_match(line) for line in self.lines)
        self.action_go_to_match(-1)
        self.refresh_bindings()
        self.refresh()
        return count

    def _is_match(self, line: str) -> bool:
        return bool(self.searched) and self.searched.lower() in line.lower()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.searched) if action == "go_to_match" else True

    def action_go_to_match(self, direction: int) -> None:
        matches = [y for y, line in enumerate(self.lines) if self._is_match(line)]
        further = [y for y in matches if (y - self._match) * direction > 0] or matches  # round and round
        if further:
            self._match = further[-1] if direction < 0 else further[0]
            self.scroll_to(y=max(0, self._match - self.size.height // 2), animate=False, force=True)

    def action_follow(self) -> None:
        self.scroll_end(animate=False, force=True)

    # -- drawing -----------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        scroll_x, scroll_y = self.scroll_offset
        width, style = self.size.width, self.rich_style
        number = scroll_y + y
        if number >= len(self.lines):
            return Strip.blank(width, style)
        text = self._styled(number)
        strip = Strip(text.render(self.app.console), cell_len(text.plain))
        return strip.crop_extend(scroll_x, scroll_x + width, style).apply_offsets(scroll_x, number)

    def _styled(self, number: int) -> Text:
        line = self.lines[number]
        text = Text(line, no_wrap=True, end="")
        text.stylize(self.rich_style)
        stamp = LOCAL_STAMP.match(line)
        if stamp:
            text.stylize(self.get_component_rich_style("log-tail--time"), 0, stamp.end())
        if line[stamp.end() if stamp else 0 :].startswith(("error:", "Traceback")):
            text.stylize(self.get_component_rich_style("log-tail--error"), stamp.end() if stamp else 0)
        if self.searched:
            found = re.finditer(re.escape(self.searched), line, re.IGNORECASE)
            for match in found:
                text.stylize(self.get_component_rich_style("log-tail--match"), *match.span())
        if (selection := self.text_selection) is not None and (span := selection.get_span(number)) is not None:
            start, end = span
            text.stylize(
                self.screen.get_component_rich_style("screen--selection"), start, len(line) if end == -1 else end
            )
        return text

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
