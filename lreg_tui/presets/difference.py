"""DifferenceScreen: how a preset differs from its saved file and from the preset that it was taken from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.content import Content

from engine.presets.catalog import Catalog
from lreg_tui.presets.preset_edit import Checked, check, shown
from lreg_tui.presets.preset_file import ABSENT, Draft, changed_settings, on_disk, unified
from lreg_tui.presets.preset_form import MUTED
from lreg_tui.text.present import NOTHING, clean
from lreg_tui.widgets.dialog import Page
from lreg_tui.widgets.keys import bind

MOST_LINES = 2000
STYLES = {"+": "$success", "-": "$error", "@": "$primary"}


class DifferenceScreen(Page):
    """All text in it may have been written by strangers."""

    BINDINGS: ClassVar[list[BindingType]] = [bind("changes", "leave", show=False, priority=True)]

    def __init__(self, content: Content) -> None:
        super().__init__("Changes")
        self.content = content

    def body(self) -> Content:
        return self.content


def differences(draft: Draft, checked: Checked, catalog: Catalog) -> Content:
    """From the saved file, if there is one, and from what it was taken from. Reads files: not for the loop."""
    drafts = [(draft.taken_from, draft.text, draft.path)]
    saved = on_disk(draft.file)
    if saved is not None and draft.file is not None:
        drafts = [(f"{draft.file.name} as it is saved", saved, draft.file), *(drafts if draft.text != saved else [])]
    parts: list[Content] = []
    for name, text, path in drafts:
        parts += [Content("")] if parts else []
        parts.append(Content.styled(f"Different from {clean(name, 80)}", "bold underline"))
        settings = changed_settings(check(text, path, catalog).preset, checked.preset)
        lines = unified(text, checked.text, (name, "now"))
        parts += _settings(settings)
        parts += [Content("")] if settings and lines else []
        parts += [] if settings or lines else [Content.styled("no difference", MUTED)]
        parts += [Content.styled(clean(line, 500), _style(line)) for line in lines[:MOST_LINES]]
        if len(lines) > MOST_LINES:
            parts.append(Content.styled(f"… and {len(lines) - MOST_LINES} lines more", MUTED))
    return Content("\n").join(parts)


def _settings(settings: list[tuple[str, Any, Any]]) -> Iterator[Content]:
    """What a run would do differently."""
    width = max((len(key) for key, _, _ in settings), default=0)
    for key, before, after in settings:
        values = (_value(before), "$error"), " → ", (_value(after), "$success bold")
        yield Content.assemble(clean(key).ljust(width + 2), *values)


def _style(line: str) -> str:
    return "bold" if line.startswith(("---", "+++")) else STYLES.get(line[:1], MUTED)


def _value(value: Any) -> str:
    return NOTHING if value is ABSENT else shown(value) or '""'
