"""Weights & Biases. Its own variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline, WANDB_DIR, ...

https://docs.wandb.ai/ref/python/init
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.export.loggers.base import PROJECT, RunLogger


class Logger(RunLogger):
    """The remote run has the run's id: resuming goes on with it."""

    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT") or PROJECT
        quiet = wandb.Settings(console="off", silent=True)  # stdout and the terminal are lreg's
        self.run = wandb.init(
            project=project, id=run_id, name=name, config=dict(settings), resume="allow", settings=quiet
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self, state: str) -> None:
        self.run.finish(exit_code=int(state == "failed"))
