"""What the command palette offers: every action of the screen below it and of the widgets in view, with its key.

An action is what has a key in the console; what Textual's own widgets do (moving, editing a line) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import Binding
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

from lreg_tui.app.help import is_in_view, own_bindings, title_of
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter

MOVES = ("move", "page", "go_to", "leap", "pan_x", "pan_y", "move_cursor")  # nobody looks these up by name
BY_SENTENCE = 0.1  # score of what is not found in a title


@dataclass(frozen=True)
class Command:
    """`title` says what it is in a word or two, `sentence` what it does, if that says more; `node` does it."""

    title: str
    sentence: str
    key: str
    node: DOMNode
    action: str

    async def run(self) -> None:
        """Do it as the key would: the widget that it is for has the focus."""
        if isinstance(self.node, Widget) and self.node.can_focus and not isinstance(self.node, Screen):
            self.node.focus()
        await self.node.app.run_action(self.action, self.node)


class Palette(Ending, CommandPalette):
    """Textual's own, which can be left twice in a row as well."""

    def __init__(self) -> None:
        super().__init__(id="--command-palette")  # by which Textual knows whether it is open

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield KeyFooter()  # in place of that of the screen below, whose keys are letters here


class KeyCommands(Provider):
    """The palette's source of these commands."""

    async def discover(self) -> Hits:
        for command in commands(self.screen):
            display = _shown(Content(command.title), command)
            yield DiscoveryHit(display, command.run, command.title, command.sentence)

    async def search(self, query: str) -> Hits:
        matcher, words = self.matcher(query), query.lower().split()
        for command in commands(self.screen):
            score = matcher.match(command.title)
            if not score and all(word in f"{command.title} {command.sentence}".lower() for word in words):
                score = BY_SENTENCE
            if score:
                display = _shown(matcher.highlight(command.title), command)
                yield Hit(score, display, command.run, command.title, command.sentence)


def _shown(title: Content, command: Command) -> Content:
    return title + Content.styled(f"  {command.key}", "dim")


def commands(screen: Screen[Any]) -> Iterator[Command]:
    """The screen's actions that can be done now, then those of its widgets, kind by kind."""
    yield from _of(screen, "")
    kinds: set[type[Widget]] = set()
    for widget in sorted(filter(is_in_view, screen.walk_children(Widget)), key=_distance):
        if type(widget) not in kinds:
            kinds.add(type(widget))
            yield from _of(widget, f"{title_of(widget)}: ")


def _distance(widget: Widget) -> int:
    """Of widgets of one kind, the one that has the focus is meant, else the one that the screen has chosen."""
    family = widget.ancestors_with_self
    return 0 if widget.has_focus_within else 1 if any(node.has_class("-chosen") for node in family) else 2


def _of(node: DOMNode, prefix: str) -> Iterator[Command]:
    """What classes of the console have keys for, but for moves, and what the app offers everywhere."""
    keys: dict[str, list[Binding]] = {}
    for binding in own_bindings(node):
        namespace, name, _ = parse(binding.action)
        if binding.description and namespace != "app" and name not in MOVES:
            keys.setdefault(binding.action, []).append(binding)
    for action, bindings in keys.items():
        if _can(node, action):
            first = bindings[0]
            displays = dict.fromkeys(node.app.get_key_display(binding) for binding in bindings)
            yield Command(prefix + _begun(first.description), _begun(first.tooltip), " ".join(displays), node, action)


def _can(node: DOMNode, action: str) -> bool:
    namespace, name, parameters = parse(action)
    target = node.screen if namespace == "screen" else node
    return bool(target.check_action(name, parameters))


def _begun(words: str) -> str:
    """As the beginning of a line."""
    return words[:1].upper() + words[1:]
