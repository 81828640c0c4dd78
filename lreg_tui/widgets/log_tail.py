"""LogTail: the end of a log, live: plain text, at the newest line unless scrolled up, with search, wrap and levels.

tail = LogTail(lines=500)
tail.path = reader.log_path  # may change at any time; None shows nothing
tail.find("nan")  # marks every match and goes to the last one; keys go on from there
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.reactive import reactive
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from lreg_tui.system.keys import key_of
from lreg_tui.text.log_file import LEVELS, LOCAL_STAMP, LogContents, LogFile, levels, with_local_time, with_short_time
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.threads import off_the_loop

if TYPE_CHECKING:
    Base = TextArea
else:
    Base = object  # of several widgets Textual takes the styles of the first one alone

SEARCHED: list[BindingType] = [
    bind("next", "go_to_match(1)", tooltip="the next match, towards the end"),
    bind("previous", "go_to_match(-1)", tooltip="the match before, towards the beginning"),
    bind("up", "scroll_up", show=False),
    bind("down", "scroll_down", show=False),
    bind("first", "scroll_home", show=False),
    bind("last", "scroll_end", show=False),
    bind("wrap", "wrap"),
    bind("copy", "copy_text", tooltip="what is selected by the mouse, or else all of it"),
]
MATCH = "searched--match"


class Searched(Base):
    """All matches are marked, the one that was gone to is selected; beyond the last one comes the first.

    The widget has the bindings SEARCHED, and a style for the component class MATCH.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)
        self.show_cursor = False
        self.searched = ""

    def find(self, text: str, *, from_end: bool = False) -> int:
        """Go to the first place that is this text, or the last, whatever its case. Returns how many lines have it."""
        self.searched = text
        matches = self._matches()
        self.selection = Selection.cursor(self.document.end if from_end else (0, 0))
        if matches:
            self._select(matches[-1 if from_end else 0])
        self.notify_style_update()  # which drops the lines that were drawn
        self.refresh_bindings()
        self.refresh()
        return len({match.start[0] for match in matches})

    def _matches(self) -> list[Selection]:
        if not self.searched:
            return []
        lines = enumerate(self.document.lines)
        pattern = re.compile(re.escape(self.searched), re.IGNORECASE)
        return [
            Selection((row, hit.start()), (row, hit.end())) for row, line in lines for hit in pattern.finditer(line)
        ]

    def _select(self, match: Selection) -> None:
        self.selection = match
        line = self.wrapped_document.location_to_offset(match.start).y
        self.scroll_to(y=max(0, line - self.size.height // 2), animate=False, force=True)

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if self.searched:
            pattern = re.compile(re.escape(self.searched), re.IGNORECASE)
            style = self.get_component_rich_style(MATCH)
            for match in pattern.finditer(line.plain):
                line.stylize(style, *match.span())
        return line

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.searched) if action == "go_to_match" else True

    def action_go_to_match(self, direction: int) -> None:
        matches = self._matches()
        further = [match for match in matches if (match.start > self.selection.start) == (direction > 0)]
        further = [match for match in further if match != self.selection] or matches
        if further:
            self._select(further[0] if direction > 0 else further[-1])

    def action_wrap(self) -> None:
        self.soft_wrap = not self.soft_wrap

    def action_copy_text(self) -> None:
        text = self.selected_text or self.text
        self.app.copy_to_clipboard(text)
        lines = text.count("\n") + 1
        self.app.notify(f"copied {lines} line{'s' * (lines != 1)}", markup=False)


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
        self._contents = LogContents((), 0)
        self._log: LogFile | None = None
        self._source: LogFile | None = None  # whose lines those are
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
        before, self._contents = self.lines, contents
        is_same = self._source is self._log and contents.gone < len(before) and not self.level
        follows = self.follows or self._source is not self._log or contents.gone >= len(before)
        self._source = self._log
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
        self._source = None
        self._show(self._contents)
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
