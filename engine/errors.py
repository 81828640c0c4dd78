"""Errors that are the user's to mend: one clear line, never a traceback.

Anything that is not an `LregError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


class LregError(Exception):
    """Bad input or a failed run. The command line prints it and exits with `exit_code`."""

    exit_code = 2


class DataError(LregError):
    """A dataset is missing, damaged, or cannot be downloaded."""


class RunError(LregError):
    """A run folder is missing, damaged, unwritable, or busy."""


class TrainingError(LregError):
    """Meta-training cannot go on: not finite too often, disk full, and so on."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one setting: where, what was found, what is allowed, and a near miss."""

    path: str
    found: str
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"found {self.found}; allowed: {self.allowed}"
        text = f"{self.path}: {text}" if self.path else text
        return f"{text} ({self.hint})" if self.hint else text


class SettingsError(LregError):
    """Settings that do not fit their schema: every problem at once, each on a line of its own."""

    def __init__(self, problems: list[Problem], source: str = "") -> None:
        self.problems = problems
        self.source = source
        prefix = f"{source}: " if source else ""
        super().__init__("\n".join(f"{prefix}{problem}" for problem in problems))


class PresetError(SettingsError):
    """A preset that cannot be used; `source` names the file."""
