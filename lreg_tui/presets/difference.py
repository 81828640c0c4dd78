"""DifferenceScreen: how a preset differs from its saved file and from the preset that it was taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.presets.catalog import Catalog
from lreg_tui.presets.form_lines import MUTED
from lreg_tui.presets.preset_edit import Checked, check, shown
from lreg_tui.presets.preset_file import ABSENT, Draft, changed_settings, on_disk, unified
from lreg_tui.text.present import NOTHING, clean
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter

MOST_LINES = 2000
STYLES = {"+": "$success", "-": "$error", "@": "$primary"}


@dataclass(frozen=True)
class Difference:
    """From one other text: its name, the settings that come out differently, and the lines of a unified difference."""

    other: str
    settings: Sequence[tuple[str, Any, Any]]
    lines: Sequence[str]


class DifferenceScreen(Ending, ModalScreen[None]):
    """One difference at a time; tab goes to the next. All text in it may have been written by strangers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "next", "other difference", priority=True),
        Binding("escape,ctrl+r,q", "leave", "back", key_display="esc", priority=True),
    ]
    DEFAULT_CSS = """
    DifferenceScreen {
        align: center middle;
        background: $background 60%;
        & > Vertical { width: 92%; max-width: 130; height: 88%; padding: 1 2; background: $panel; margin-bottom: 1; }
        #heading { height: 1; text-style: bold; margin-bottom: 1; }
        VerticalScroll { height: 1fr; background: $panel; scrollbar-size-vertical: 1; }
        VerticalScroll > Static { height: auto; }
    }
    """

    def __init__(self, differences: Sequence[Difference]) -> None:
        super().__init__()
        self.differences = differences
        self.index = 0

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(id="heading", markup=False)
            with VerticalScroll():
                yield Static(id="difference", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self._show()
        self.query_one(VerticalScroll).focus()

    def _show(self) -> None:
        found = self.differences[self.index]
        self.query_one("#heading", Static).update(f"Different from {clean(found.other, 80)}")
        self.query_one("#difference", Static).update(content(found))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return len(self.differences) > 1 if action == "next" else True

    def action_next(self) -> None:
        self.index = (self.index + 1) % len(self.differences)
        self._show()
        self.query_one(VerticalScroll).scroll_home(animate=False)


def content(difference: Difference) -> Content:
    """What a run would do differently, then the text line by line."""
    parts: list[Content] = []
    width = max((len(key) for key, _, _ in difference.settings), default=0)
    for key, before, after in difference.settings:
        parts.append(
            Content.assemble(
                clean(key).ljust(width + 2), (_value(before), "$error"), " → ", (_value(after), "$success bold")
            )
        )
    if parts and difference.lines:
        parts.append(Content(""))
    for line in difference.lines[:MOST_LINES]:
        style = "bold" if line.startswith(("---", "+++")) else STYLES.get(line[:1], MUTED)
        parts.append(Content.styled(clean(line, 500), style))
    if len(difference.lines) > MOST_LINES:
        parts.append(Content.styled(f"… and {len(difference.lines) - MOST_LINES} lines more", MUTED))
    return Content("\n").join(parts) if parts else Content.styled("no difference", MUTED)


def _value(value: Any) -> str:
    return NOTHING if value is ABSENT else shown(value) or '""'


def differences(draft: Draft, checked: Checked, catalog: Catalog) -> list[Difference]:
    """From the saved file, if there is one, and from what it was taken from. Reads files: not for the loop."""
    others = [(draft.taken_from, draft.text, draft.place)]
    saved = on_disk(draft.file)
    if saved is not None and draft.file is not None:
        others.insert(0, (f"{draft.file.name} as it is saved", saved, draft.file))
    found: list[Difference] = []
    for name, text, place in others:
        if found and text == saved:
            continue
        settings = changed_settings(check(text, place, catalog).preset, checked.preset)
        lines = unified(text, checked.text, (name, "now"))
        found.append(Difference(name, settings, lines))
    return found
