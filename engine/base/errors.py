"""Errors that are the user's to mend: one clear line, never a traceback.

Anything that is not an `LregError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

MOST_PROBLEMS = 40  # that are told at once
LONGEST_SOURCE = 400  # characters of a file's path in front of a problem


class LregError(Exception):
    """Bad input or a failed run. The command line prints it and exits with `exit_code`.

    Every argument is one line, whatever a user's or a stranger's words in it hold: what would break it, or do harm to
    a terminal, is escaped.
    """

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(printable, lines)))


class DataError(LregError):
    """A dataset is missing, damaged, or cannot be downloaded."""


class RunError(LregError):
    """A run folder is missing, damaged, unwritable, or busy."""


class StorageError(RunError):
    """A run folder that was deleted or moved while it was looked at, or has no room: nobody's bad input."""

    exit_code = 1


class ArgumentError(LregError, ValueError, TypeError):
    """A wrong argument of a public function, in one line: which one, what was found, what is allowed.

    Python's own names for this catch it too.
    """


class TrainingError(LregError):
    """Meta-training cannot go on: not finite too often, disk full, and so on."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one setting: where, what was found, what is allowed, and a near miss.

    `source` is the file that says so, where it is another than the error's own.
    """

    path: str
    found: str
    allowed: str
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        """One line that does no harm to a terminal, whatever the user wrote."""
        text = f"found {self.found}; allowed: {self.allowed}"
        text = f"{shortened(self.path)}: {text}" if self.path else text
        return printable(f"{text} ({self.hint})" if self.hint else text)


class SettingsError(LregError):
    """Settings that do not fit their schema: the problems at once, each on a line of its own.

    `problems` are the first `MOST_PROBLEMS`, `more` is the number of the rest, which nobody would read.
    """

    def __init__(self, problems: Sequence[Problem], source: str = "", more: int = 0) -> None:
        first = problems[:MOST_PROBLEMS]
        self.problems = [dataclasses.replace(problem, source=problem.source or source) for problem in first]
        self.more = more + len(problems) - len(first)
        self.source = source
        lines = [f"{shortened(p.source, LONGEST_SOURCE)}: {p}" if p.source else str(p) for p in self.problems]
        super().__init__(*lines, *([f"and {self.more} more problems"] if self.more else []))


class PresetError(SettingsError):
    """A preset that cannot be used; `source` names the file."""


def printable(text: str) -> str:
    """Text on one line, with escapes in place of line breaks, terminal codes, direction marks and stray surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
