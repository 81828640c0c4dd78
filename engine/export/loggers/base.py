"""What a run logger is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

PROJECT = "lreg"  # where the tracker's own environment variable names none


class RunLogger(ABC):
    """One run at one tracker. Whatever a method raises turns the logger off, and is told in the run's log."""

    @abstractmethod
    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        """Begin the remote run that belongs to `run_id`, or go on with it. `settings`: the preset's, by dotted key."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the numbers of one meta-step; those that were not finite are NaN or infinite."""

    @abstractmethod
    def finish(self, state: str) -> None:
        """Send what is left. `state`: finished, stopped or failed."""
