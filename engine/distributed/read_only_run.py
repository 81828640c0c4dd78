"""The run in a process of a process group that does not hold it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.runs.writer import Run


class ReadOnlyRun(Run):
    """The run in a process that does not hold it: nothing is written."""

    def __enter__(self) -> ReadOnlyRun:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was taken."""

    def _write_status(self, durable: bool = True, **changes: Any) -> None:
        """Rank 0 does."""

    def append(self, records: Any) -> None:
        """Rank 0 does."""

    def sync_metrics(self) -> int:
        return 0

    def truncate_metrics(self, size: int) -> None:
        """Rank 0 does."""

    def log(self, text: str) -> None:
        """Rank 0 does."""

    def write_transfer(self, name: str, evaluation: Mapping[str, Any]) -> Path:
        return self.path / "transfer" / name
