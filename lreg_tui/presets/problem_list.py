"""What is wrong with a preset, a problem each line; and how it differs from its file, and from where it began."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.base.errors import Problem
from engine.presets.catalog import Catalog
from lreg_tui.presets.preset_edit import (
    ABSENT,
    HERE,
    Checked,
    Draft,
    changed_settings,
    check,
    label_of,
    on_disk,
    shown,
    unified,
)
from lreg_tui.presets.preset_form import MUTED
from lreg_tui.presets.toml_edit import lines_of
from lreg_tui.text.present import NOTHING, clean
from lreg_tui.widgets.dialog import Page
from lreg_tui.widgets.keys import bind


class ProblemList(OptionList):
    """Enter, or a click, selects a problem; `next` goes through them, round and round."""

    HELP_TITLE = "Problems"
    DEFAULT_CSS = """
    ProblemList {
        height: auto; max-height: 6; display: none; border: none; padding: 0 1;
        background: $surface; scrollbar-size-vertical: 1;
        &:focus { border: none; background-tint: transparent; }
        & > .option-list--option-highlighted { background: $surface; color: $foreground; text-style: none; }
        &:focus > .option-list--option-highlighted { background: $primary 30%; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self.problems: Sequence[Problem] = ()
        self._last = -1  # the problem that was gone to last

    def show(self, problems: Sequence[Problem]) -> None:
        if problems != self.problems:
            self.problems, self._last = problems, -1
            self.set_options([Option(content(problem)) for problem in problems])
            self.display = bool(problems)

    def go_to(self, index: int) -> Problem:
        """The problem of a line, which is highlighted from now on."""
        self.highlighted = self._last = index
        return self.problems[index]

    def next(self) -> Problem:
        """The problem after the one that was gone to last."""
        return self.go_to((self._last + 1) % len(self.problems))


def content(problem: Problem) -> Content:
    """A problem as a line: key, what was found, what is allowed, the hint."""
    source = f" ({label_of(Path(problem.source))})" if problem.source not in ("", HERE) else ""
    if not problem.path:  # about the text as a whole
        return Content.assemble(("✗", "$error bold"), (clean(source, 60), "bold"), clean(f" {problem.found}", 300))
    hint = f"  {problem.hint}" if problem.hint else ""
    return Content.assemble(
        ("✗ ", "$error bold"),
        (clean(problem.path, 80), "bold"),
        (clean(source, 60), MUTED),
        clean(f"  found {problem.found}", 200),
        (clean(hint, 160), "$accent"),
        (clean(f"  allowed: {problem.allowed}", 100 if hint else 300), MUTED),
    )


def lines_with(problems: Sequence[Problem], text: str) -> list[int | None]:
    """The line of the text that each problem is about; None for one that is about none."""
    paths = ["extends" if problem.source not in ("", HERE) else problem.path for problem in problems]
    lines = lines_of(text, [path for path in paths if path])
    told = [re.search(r"line (\d+)", problem.found) for problem in problems]  # where the text is no TOML
    return [
        lines.get(path) if path else int(match.group(1)) - 1 if match else None
        for path, match in zip(paths, told, strict=True)
    ]


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
        width = max((len(key) for key, _, _ in settings), default=0)
        for key, before, after in settings:  # what a run would do differently
            values = (_value(before), "$error"), " → ", (_value(after), "$success bold")
            parts.append(Content.assemble(clean(key).ljust(width + 2), *values))
        parts += [Content("")] if settings and lines else []
        parts += [] if settings or lines else [Content.styled("no difference", MUTED)]
        parts += [Content.styled(clean(line, 500), _style(line)) for line in lines[:MOST_LINES]]
        if len(lines) > MOST_LINES:
            parts.append(Content.styled(f"… and {len(lines) - MOST_LINES} lines more", MUTED))
    return Content("\n").join(parts)


def _style(line: str) -> str:
    return "bold" if line.startswith(("---", "+++")) else STYLES.get(line[:1], MUTED)


def _value(value: Any) -> str:
    return NOTHING if value is ABSENT else shown(value) or '""'
