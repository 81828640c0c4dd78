"""PickList: pick one thing or several from a list by keyboard; typing narrows the list down.

chosen = await app.push_screen_wait(PickList("metric", [Choice("meta_loss", "meta-loss")], several=False))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from lreg_tui.text import present
from lreg_tui.widgets.dialog import Dialog, LineInput
from lreg_tui.widgets.keys import bind

LONGEST_LABEL = 44  # columns; help begins after it
MARKS = {True: "[x] ", False: "[ ] "}


@dataclass(frozen=True)
class Choice:
    """A value, what it is called, and a few words on it. All may be text from strangers."""

    value: str
    label: str = ""
    help: str = ""

    @property
    def name(self) -> str:
        return present.clean(self.label or self.value, 120)


class ListFilter(LineInput):
    """What narrows a list down, beside which there is nothing to go to: keys of the list are typed here.

    The screen has the actions accept and move, and where several can be picked, mark and mark_all. A space marks there,
    and is a letter like any other elsewhere.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "screen.accept", "accept"),
        bind("mark", "screen.mark"),
        bind("mark_all", "screen.mark_all", keys="ctrl+a"),
        bind("up", "screen.move(-1)", keys="up", show=False),
        bind("down", "screen.move(1)", keys="down", show=False),
        bind("page_up", "screen.move(-10)", show=False),
        bind("page_down", "screen.move(10)", show=False),
    ]

    def __init__(self, several: bool = False) -> None:
        super().__init__(placeholder="type to narrow down")
        self.several = several

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return not (self.several and key == "space") and super().check_consume_key(key, character)

    def on_key(self, event: events.Key) -> None:
        if self.several and event.key == "space":
            event.prevent_default()  # else it is typed before anybody asks whether it is


class PickList(Dialog[tuple[str, ...] | None]):
    """Returns the picked values (in the order in which they were picked), or None where the user has cancelled."""

    DEFAULT_CSS = """
    PickList {
        & > .dialog { width: 90%; max-width: 96; }
        Input { margin-bottom: 1; }
        OptionList {
            height: auto; max-height: 30; border: none; padding: 0; background: $panel;
            text-wrap: nowrap; text-overflow: ellipsis; scrollbar-size-vertical: 1;
        }
    }
    """

    def __init__(
        self,
        title: str,
        choices: Iterable[Choice],
        chosen: Sequence[str] = (),
        *,
        several: bool = False,
        never_none: bool = False,
    ) -> None:
        """`never_none`: where nothing is marked, what is under the cursor is picked."""
        super().__init__(title)
        self.never_none = never_none
        self.choices = list(choices)
        self.several = several
        self.chosen = [value for value in chosen if any(choice.value == value for choice in self.choices)]
        self.listed = list(self.choices)

    def contents(self) -> Iterable[Widget]:
        yield ListFilter(self.several)
        yield OptionList(markup=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False  # typing always narrows down, arrows always move
        self._show(self.chosen[0] if self.chosen else None)
        self.query_one(Input).focus()

    def _show(self, highlighted: str | None = None) -> None:
        """List what fits the filter, with the highlight where it was."""
        words = self.query_one(Input).value.lower().split()
        texts = {choice.value: f"{choice.name} {choice.value} {choice.help}".lower() for choice in self.choices}
        self.listed = [choice for choice in self.choices if all(word in texts[choice.value] for word in words)]
        listed = self.query_one(OptionList)
        listed.clear_options()
        longest = max((len(choice.name) for choice in self.choices), default=0)
        width = min(longest, LONGEST_LABEL, self.app.size.width // 3)
        options = [Option(self._prompt(choice, width)) for choice in self.listed]
        listed.add_options(options or [Option(Text("nothing here is called so", "dim"), disabled=True)])
        if self.listed:
            values = [choice.value for choice in self.listed]
            listed.highlighted = values.index(highlighted) if highlighted in values else 0

    def _prompt(self, choice: Choice, width: int) -> Text:
        is_chosen = choice.value in self.chosen
        line = Text(no_wrap=True, overflow="ellipsis")
        if self.several:
            line.append(MARKS[is_chosen], "bold" if is_chosen else "dim")
        line.append(choice.name.ljust(width), "bold" if is_chosen else "")
        if choice.help:
            line.append(f"  {present.clean(choice.help, 200)}", "dim")
        return line

    @property
    def current(self) -> Choice | None:
        index = self.query_one(OptionList).highlighted
        return self.listed[index] if index is not None and index < len(self.listed) else None

    def on_input_changed(self, event: Input.Changed) -> None:
        """The highlight goes to what is called just so, else it stays: sam is not asam."""
        named = [choice.value for choice in self.choices if choice.name.lower() == event.value.strip().lower()]
        self._show(named[0] if named else self.current.value if self.current else None)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click."""
        event.stop()
        self.action_mark() if self.several else self.action_accept()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.several if action in ("mark", "mark_all") else True  # else a space is part of a word

    def action_move(self, by: int) -> None:
        listed = self.query_one(OptionList)
        if self.listed:
            index = (listed.highlighted or 0) + by
            step = abs(by) == 1  # single steps go round, pages stop at the ends
            listed.highlighted = index % len(self.listed) if step else max(0, min(index, len(self.listed) - 1))

    def action_mark(self) -> None:
        if (choice := self.current) is not None:
            self._mark([choice.value], choice.value not in self.chosen)
            self._show(choice.value)

    def action_mark_all(self) -> None:
        """Mark all that are listed, or none of them where all are marked."""
        values = [choice.value for choice in self.listed]
        self._mark(values, not set(values) <= set(self.chosen))
        self._show(self.current.value if self.current else None)

    def _mark(self, values: Sequence[str], is_chosen: bool) -> None:
        remaining = [value for value in self.chosen if value not in values or is_chosen]
        self.chosen = [*remaining, *(value for value in values if is_chosen and value not in remaining)]

    def action_accept(self) -> None:
        if self.several and (self.chosen or not self.never_none):
            self.dismiss(tuple(self.chosen))
        elif (choice := self.current) is not None:
            self.dismiss((choice.value,))


def pick_one(app: App[Any], title: str, choices: Iterable[Choice], take: Callable[[str], Any], now: str = "") -> None:
    """Let the user pick one of them, `now` the one under the cursor; `take` is given its value."""
    app.push_screen(PickList(title, choices, (now,)), lambda picked: take(picked[0]) if picked else None)
