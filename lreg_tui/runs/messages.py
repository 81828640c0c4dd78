"""What widgets and screens tell each other: data goes down as attributes, news comes up as these."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from lreg_tui.runs.feed import RunRow


@dataclass
class RunsChanged(Message):
    """The run store has changed: every row, oldest first. A slow terminal may skip all but the newest."""

    rows: tuple[RunRow, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RunsChanged)


@dataclass
class SeriesChanged(Message):
    """Runs that are followed have new records: ask the feed for their series."""

    run_ids: frozenset[str]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SeriesChanged) and message.run_ids <= self.run_ids


@dataclass
class RunEnded(Message):
    """A run that was live when the console last looked has ended."""

    row: RunRow
