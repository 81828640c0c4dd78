"""Keys: bound by their meaning, shown on the last line of a screen, and taken in the order in which they were typed.

BINDINGS = [bind("stop", "stop_run", tooltip="finish the truncation, write a checkpoint, and end")]
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.events import Event, Key, Paste
from textual.keys import key_to_character
from textual.screen import ActiveBinding, Screen
from textual.widget import Widget
from textual.worker import WorkerState

from lreg_tui.system.keys import KEYS


def bind(
    meaning: str,
    action: str,
    word: str = "",
    tooltip: str = "",
    *,
    keys: str = "",
    show: bool = True,
    priority: bool = False,
    group: Binding.Group | None = None,
) -> Binding:
    """`word` is one of the meaning's, the first without it; `keys` are some of its keys, without it all of them."""
    key = KEYS[meaning]
    return Binding(
        keys or key.names,
        action,
        word or key.words[0],
        show=show,
        priority=priority,
        tooltip=tooltip or key.meaning,
        group=group,
    )


GAP = 2  # columns between two items
WAY_OUT = ("leave full screen", "escape", KEYS["quit"].names)  # words or keys that stand at the end of the line


@dataclass(frozen=True)
class FooterItem:
    """Keys (how they are called, and how they are shown), and a word on what they do."""

    keys: tuple[tuple[str, str], ...]
    words: str
    enabled: bool = True

    @property
    def width(self) -> int:
        return cell_len("".join(label for _, label in self.keys)) + 1 + cell_len(self.words)


HELP = FooterItem((("question_mark", "?"),), "help")
HELP_ANYWHERE = FooterItem((("f1", "F1"),), "help")  # where a ? is a letter, and where a modal screen hides the app


class KeyFooter(Widget):
    """The line at the bottom of a screen. A click on an item is as good as its key."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-footer--key", "key-footer--words", "key-footer--off"}
    ALLOW_SELECT = False
    DEFAULT_CSS = """
    KeyFooter {
        dock: bottom; height: 1; padding: 0 1;
        color: $footer-foreground; background: $footer-background;
        & > .key-footer--key { color: $footer-key-foreground; text-style: bold; }
        & > .key-footer--words { color: $footer-description-foreground; }
        & > .key-footer--off { color: $footer-description-foreground; text-style: dim; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.items: tuple[FooterItem, ...] = ()
        self.last: tuple[FooterItem, ...] = (HELP_ANYWHERE,)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._look)  # which comes when the screen is whole

    def _look(self, screen: Screen[object]) -> None:
        """Draw again, if there is something else to draw."""
        if screen is not self.screen or not self.is_attached:
            return
        items = tuple(items_of(screen))
        out = tuple(item for way in WAY_OUT for item in items if way in (item.keys[0][0], item.words))
        focused = screen.focused
        is_letter = focused is not None and focused.check_consume_key("question_mark", "?")
        has_letter = not is_letter and "question_mark" in screen.active_bindings
        content = tuple(item for item in items if item not in out), (*out, HELP if has_letter else HELP_ANYWHERE)
        if content != (self.items, self.last):
            self.items, self.last = content
            self.refresh()

    def render(self) -> Text:
        room = self.content_size.width
        text = Text(no_wrap=True, end="")
        room_before = room - sum(item.width + GAP for item in self.last)
        for number, item in enumerate(fitting(self.items, room_before)):
            text.append(" " * GAP * (number > 0))
            self._write(text, item)
        text.append(" " * (room_before - text.cell_len))
        for item in self.last:
            text.append(" " * GAP)
            self._write(text, item)
        return text

    def _write(self, text: Text, item: FooterItem) -> None:
        key_style = self._look_of("key" if item.enabled else "off")
        for key, label in item.keys:
            text.append(label, key_style + _click(key))
        text.append(f" {item.words}", self._look_of("words") + _click(item.keys[0][0]))

    def _look_of(self, part: str) -> Style:
        style = self.get_component_rich_style(f"key-footer--{part}")
        return Style(color=style.color, bold=style.bold, dim=style.dim)


def _click(key: str) -> Style:
    return Style(meta={"@click": f"app.simulate_key({key!r})"})


def items_of(screen: Screen[object]) -> Iterator[FooterItem]:
    """What there is to show, in the order of the bindings: of what has the focus, of the screen, of the app."""
    actions: dict[str, ActiveBinding] = {}
    for active in screen.active_bindings.values():
        helps = active.binding.action.removeprefix("app.") == "help"
        if active.binding.show and active.binding.description and not (helps or _is_typed(active, screen)):
            actions.setdefault(active.binding.action, active)
    for group, members in groupby(actions.values(), key=lambda active: active.binding.group):
        of_group = list(members)
        keys = [(active.binding.key, screen.app.get_key_display(active.binding)) for active in of_group]
        if group is not None:
            yield FooterItem(tuple(keys), group.description, any(active.enabled for active in of_group))
        else:
            for key, active in zip(keys, of_group, strict=True):
                yield FooterItem((key,), active.binding.description, active.enabled)


def _is_typed(active: ActiveBinding, screen: Screen[object]) -> bool:
    """True of a key that what has the focus takes for text."""
    key, focused = active.binding.key, screen.focused
    if focused is None or active.binding.priority:
        return False
    return focused.check_consume_key(key, key_to_character(key))


def fitting(items: Sequence[FooterItem], room: int) -> Iterator[FooterItem]:
    """The first ones, as many as fit whole into so many columns with the gaps between them."""
    for number, item in enumerate(items):
        room -= item.width + GAP * (number > 0)
        if room < 0:
            return
        yield item


PATIENCE_S = 2.0  # a key waits no longer for a screen that is never at rest; a busy machine may take half of it


class KeysInOrder(App[None]):
    """What is pasted waits for its turn as well."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._typed: deque[Event] = deque()
        self._patience_ends = 0.0

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:  # else the turn of the one before has yet to come
            self._patience_ends = time.monotonic() + PATIENCE_S
            await self._take_turn()

    async def act_on(self, event: Event) -> None:
        """What a key or a paste does when it is its turn."""
        await super().on_event(event)

    async def _take_turn(self) -> None:
        """Let the first act if it can, and look again for what is left."""
        if self._is_at_rest or time.monotonic() > self._patience_ends:
            await self.act_on(self._typed.popleft())
            self._patience_ends = time.monotonic() + PATIENCE_S
        if self._typed:
            self.call_later(self._take_turn)
            await asyncio.sleep(0)  # let the others do what is waited for

    @property
    def _is_at_rest(self) -> bool:
        """True if the screen stands, and no message and no worker is on its way."""
        screen = self.screen
        nodes = (self, *screen.walk_children(with_self=True))
        is_waiting = any(node.message_queue_size or node._pending_message for node in nodes)  # the next is taken out
        is_starting = any(worker.state is WorkerState.PENDING for worker in self.workers)
        return screen.is_mounted and not (is_waiting or is_starting)
