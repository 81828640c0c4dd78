"""HelpScreen: what keys do now: those of what has the focus, of the screen, of the rest of it, of everywhere; and
NoticesScreen: what the console has told so far, the newest first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import ClassVar

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from textual.binding import Binding, BindingsMap, BindingType
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

from lreg_tui.widgets.dialog import Page
from lreg_tui.widgets.keys import bind

OURS = "lreg_tui"  # what Textual's own widgets do with keys is no help
PALETTE = "command_palette"  # but for this one
KEY_WIDTH = 12
STYLES = {"error": "bold red", "warning": "yellow"}  # of messages
COLUMN_GAP = re.compile(r"(?<=\S) {2,}")
Keys = dict[str, list[str]]
"""What can be done, and by which keys."""


class HelpScreen(Page):
    """Groups are named by `HELP_TITLE` of their classes; a screen's `HELP_TEXT` follows them."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("help", "leave", show=False)]

    def __init__(self, explained: Screen[object]) -> None:
        super().__init__("Keys")
        self.explained = explained

    def body(self) -> LaidOutText:
        return LaidOutText(*self._parts())

    def _parts(self) -> Iterator[RenderableType]:
        colours = self.app.theme_variables
        heading, key = f"bold {colours['primary']}", f"bold {colours['accent']}"
        for title, keys in groups(self.explained):
            yield Text(title, heading)
            yield _in_columns([(" ".join(names), meaning) for meaning, names in keys.items()], KEY_WIDTH, key, indent=2)
            yield Text()
        title, _, lines = str(getattr(self.explained, "HELP_TEXT", "")).partition("\n")
        yield Text(title, heading)
        for has_columns, group in groupby(map(COLUMN_GAP.split, lines.splitlines()), key=lambda parts: len(parts) == 2):
            rows = list(group)
            yield _in_columns(rows) if has_columns else Text("\n".join("  ".join(parts) for parts in rows))


class NoticesScreen(Page):
    """`told`: each message, how severe it is, and when it came (unix seconds)."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("messages", "leave", show=False)]

    def __init__(self, told: Iterable[tuple[str, str, float]]) -> None:
        super().__init__("Messages")
        self.told = list(told)

    def body(self) -> Text:
        text = Text() if self.told else Text("nothing yet", "dim")
        for message, severity, when in reversed(self.told):
            text.append(time.strftime("%H:%M:%S  ", time.localtime(when)), "dim")
            text.append(f"{message}\n", STYLES.get(severity, ""))
        return text


class LaidOutText:
    """What is drawn, one below the other, and laid out once for each width: Textual asks several times."""

    def __init__(self, *parts: RenderableType) -> None:
        self.parts = Group(*parts)
        self.segments: dict[int, list[Segment]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if width not in self.segments:
            self.segments[width] = list(console.render(self.parts, options))
        return self.segments[width]


def _in_columns(rows: Iterable[Sequence[str]], width: int = 0, style: str = "", indent: int = 0) -> RenderableType:
    """Two columns of text, each wrapped within itself; the first is as wide as its longest, or `width`."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=width, style=style, no_wrap=True)
    table.add_column(overflow="fold")
    for first, second in rows:
        table.add_row(Text(first), Text(second))
    return Padding(table, (0, 0, 0, indent))


def groups(screen: Screen[object]) -> Iterator[tuple[str, Keys]]:
    """Titles and keys: of what has the focus and what it is in, of the screen, of what else is there, of everywhere.

    A key that means something else to what comes before is left out; but for what else is there: it has no focus yet.
    """
    focused = screen.focused.ancestors_with_self if screen.focused is not None else []
    near = [node for node in focused if isinstance(node, Widget) and not isinstance(node, Screen)]
    taken = {binding.key for _, binding in screen._bindings if binding.priority}  # before whatever has the focus
    for widget in near:
        yield from _group(widget, taken)
        taken |= {binding.key for binding in own_bindings(widget)}
    yield from _group(screen, taken - {binding.key for _, binding in screen._bindings if binding.priority})
    taken |= {binding.key for _, binding in screen._bindings}
    listed = {(binding.key, _bare(binding.action)) for node in (*near, screen) for binding in own_bindings(node)}
    kinds: set[type[DOMNode]] = {type(widget) for widget in near}
    for widget in sorted(screen.walk_children(Widget), key=lambda widget: not is_in_view(widget)):
        if type(widget) not in kinds:
            kinds.add(type(widget))
            same = {binding.key for binding in own_bindings(widget) if (binding.key, _bare(binding.action)) in listed}
            yield from _group(widget, same)
    if screen.is_modal:  # of what lies below it, only such keys reach it
        taken |= {binding.key for _, binding in screen.app._bindings if not binding.priority}
    yield from _group(screen.app, taken, "Everywhere")


def is_in_view(widget: Widget) -> bool:
    family, maximized = widget.ancestors_with_self, widget.screen.maximized
    is_covered = maximized is not None and maximized not in family
    return not is_covered and all(node.display for node in family if isinstance(node, Widget))


def _group(node: DOMNode, without: set[str], title: str = "") -> Iterator[tuple[str, Keys]]:
    """The keys of a screen or widget, by what they do; nothing where there are none."""
    by_meaning: Keys = {}
    for binding in own_bindings(node):
        meaning = binding.tooltip or binding.description
        display = node.app.get_key_display(binding)
        if meaning and binding.key not in without and display not in by_meaning.setdefault(meaning, []):
            by_meaning[meaning].append(display)
    keys = {meaning: keys for meaning, keys in by_meaning.items() if keys}
    if keys:
        yield title or title_of(node), keys


def own_bindings(node: DOMNode) -> list[Binding]:
    """What classes of the console have keys for; of the app's, the palette as well."""
    ours = [kind for kind in type(node).__mro__ if kind.__module__.startswith(OURS)]
    maps = [BindingsMap(kind.__dict__.get("BINDINGS", ())) for kind in ours]
    declared = {(key, binding.action) for bindings in maps for key, binding in bindings}
    return [
        binding for key, binding in node._bindings if (key, binding.action) in declared or binding.action == PALETTE
    ]


def _bare(action: str) -> str:
    """An action without whose it is: a screen may list one of the app's as its own."""
    return action.removeprefix("app.").removeprefix("screen.")


def title_of(node: DOMNode) -> str:
    """What people call a screen or widget."""
    name = type(node).__name__.removesuffix("Screen")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return str(getattr(node, "HELP_TITLE", "") or words.capitalize())
