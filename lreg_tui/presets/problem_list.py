"""ProblemList: what is wrong with a preset, a problem each line; hidden when nothing is."""

from __future__ import annotations

from collections.abc import Sequence

from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.base.errors import Problem
from lreg_tui.presets import problem_lines


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
        self._place = -1

    def show(self, problems: Sequence[Problem]) -> None:
        self.problems, self._place = problems, -1
        self.set_options([Option(problem_lines.content(problem)) for problem in problems])
        self.display = bool(problems)

    def go_to(self, index: int) -> Problem:
        """The problem at a place, which is highlighted from now on."""
        self.highlighted = self._place = index
        return self.problems[index]

    def next(self) -> Problem:
        """The problem after the one that was gone to last."""
        return self.go_to((self._place + 1) % len(self.problems))
