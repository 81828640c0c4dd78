"""LogTail: the end of a log, live: plain text, at the newest line unless scrolled up, with search, wrap and levels.

tail = LogTail(lines=500)
tail.path = reader.log_path  # may change at any time; None shows nothing
tail.find("nan")  # marks every match and goes to the last one; keys go on from there
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.reactive import reactive
from textual.widgets import TextArea

from lreg_tui.system.keys import key_of
from lreg_tui.text.log_file import LEVELS, LOCAL_STAMP, LogContents, LogFile, levels, with_local_time, with_short_time
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.searched import MATCH, SEARCHED, Searched
from lreg_tui.widgets.threads import off_the_loop

LOOK_EVERY_S = 0.5
NOTHING = "the log is empty"


class LogTail(Searched, TextArea):
    """The last lines of the log at `path`, followed while the end is in view."""

    HELP_TITLE = "Log"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("follow", "follow", tooltip="the end of the log, and follow it", show=False),
        bind("levels", "levels"),
        *SEARCHED,
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {MATCH, "log-tail--time", "log-tail--warning", "log-tail--error"}
    DEFAULT_CSS = """
    LogTail {
        border: none; padding: 0; background: transparent; color: $text;
        scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
        scrollbar-color: $foreground 25%; scrollbar-background: $surface;
        &:focus { border: none; }
        & > .searched--match { background: $accent; color: $background; }
        & > .log-tail--time { color: $text-muted; }
        & > .log-tail--warning { color: $text-warning; }
        & > .log-tail--error { color: $text-error; }
    }
    """

    path: reactive[Path | None] = reactive(None, init=False)

    def __init__(
        self, path: Path | None = None, *, lines: int = 1000, short_times: bool = False, id: str | None = None
    ) -> None:
        """`short_times`: of a time stamp only the time is shown, and its zone."""
        super().__init__(soft_wrap=False, placeholder=NOTHING, id=id)
        self.highlight_cursor_line = False
        self.most_lines = lines
        self.short_times = short_times
        self.level = 0
        self.lines: list[str] = []  # that are shown, and what level each is of
        self._levels: Sequence[int] = ()
        self._found = LogContents((), 0)
        self._log: LogFile | None = None
        self._shown: LogFile | None = None  # whose lines those are
        self._is_looking = False
        self.set_reactive(LogTail.path, path)

    @property
    def follows(self) -> bool:
        """True while the newest line is in view."""
        return self.is_vertical_scroll_end

    def on_mount(self) -> None:
        self.watch_path()
        self.set_interval(LOOK_EVERY_S, self.look)

    def watch_path(self) -> None:
        self._log = LogFile(self.path, self.most_lines) if self.path is not None else None
        if self._log is None:
            self._show(LogContents((), 0))
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
            contents = await off_the_loop(log.look, "log")
        finally:
            self._is_looking = False
        if log is not self._log:  # another log has been chosen meanwhile, and waits
            self.look()
        elif contents is not None:
            self._show(contents)

    def _show(self, contents: LogContents) -> None:
        before, self._found = self.lines, contents
        is_same = self._shown is self._log and contents.gone < len(before) and not self.level
        follows = self.follows or self._shown is not self._log or contents.gone >= len(before)
        self._shown = self._log
        told = with_short_time if self.short_times else with_local_time
        visible = [(told(line), level) for line, level in zip(contents.lines, levels(contents.lines), strict=True)]
        visible = [(line, level) for line, level in visible if level >= self.level]
        self.lines, self._levels = [line for line, _ in visible], [level for _, level in visible]
        if is_same:
            self._grow(before, contents.gone, follows)
        elif self.lines == before:
            return  # another log that says the same, as one that is empty
        else:
            self.load_text("\n".join(self.lines))
        self.history.clear()
        if follows:
            self.action_follow()

    def _grow(self, before: Sequence[str], gone: int, follows: bool) -> None:
        """Drop lines at the top, and put those in place that differ at the end; what is in view stays there."""
        rows = self.wrapped_document.location_to_offset((gone, 0)).y
        self.delete((0, 0), (gone, 0))
        left = before[gone:]
        same = next((row for row, pair in enumerate(zip(left, self.lines, strict=False)) if pair[0] != pair[1]), None)
        start = (len(left) - 1, len(left[-1])) if same is None else (same, 0)
        new = ["", *self.lines[len(left) :]] if same is None else self.lines[same:]
        self.replace("\n".join(new), start, self.document.end)
        if rows and not follows:
            self.scroll_to(y=max(0, self.scroll_offset.y - rows), animate=False, force=True)

    def find(self, text: str, *, from_end: bool = True) -> int:
        return super().find(text, from_end=from_end)

    def action_follow(self) -> None:
        self.scroll_end(animate=False, immediate=True, force=True, x_axis=False)

    def action_wrap(self) -> None:
        follows = self.follows
        super().action_wrap()
        if follows:
            self.call_after_refresh(self.action_follow)

    def action_scroll_end(self) -> None:
        self.action_follow()

    def action_levels(self) -> None:
        self.level = (self.level + 1) % len(LEVELS)
        self.placeholder = f"no {LEVELS[self.level]} here; {key_of('levels')} for more" if self.level else NOTHING
        self._shown = None
        self._show(self._found)
        self.app.notify(f"log: {LEVELS[self.level]}", markup=False)

    def get_line(self, line_index: int) -> Text:
        text = super().get_line(line_index)
        stamp = LOCAL_STAMP.match(text.plain)
        start = stamp.end() if stamp else 0
        kind = ("", "warning", "error")[self._levels[line_index] if line_index < len(self._levels) else 0]
        parts: list[tuple[str, Any]] = [("time", (0, start)), (kind, (start, len(text)))]
        for name, span in parts:
            if name:
                text.stylize_before(self.get_component_rich_style(f"log-tail--{name}", partial=True), *span)
        return text
