"""ProblemList: what is wrong with a preset, a problem each line; hidden when nothing is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.base.errors import Problem
from lreg_tui.presets.preset_edit import HERE
from lreg_tui.presets.preset_file import label_of
from lreg_tui.presets.preset_form import MUTED
from lreg_tui.presets.toml_edit import lines_of
from lreg_tui.text.present import clean


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
