"""trackio: local by default. https://huggingface.co/docs/trackio"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.export.loggers.base import PROJECT, RunLogger


class Logger(RunLogger):
    """The remote run is called by the run's id, by which trackio finds it again."""

    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        import trackio

        self.run = trackio.init(project=PROJECT, name=run_id, config={"name": name, **settings}, resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)  # the run, not the module: that one's is another in each thread

    def finish(self, state: str) -> None:
        self.run.finish()
