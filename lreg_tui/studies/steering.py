"""SteeringScreen: a screen on which studies can be stopped, paused and resumed, with all their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual.binding import Binding

from lreg_tui.runs.acting import ActingScreen
from lreg_tui.studies import study_start

STEERING = (
    Binding("s", "stop_run", "stop", tooltip="stop the study: every run writes a checkpoint and ends"),
    Binding("p,u", "pause_run", "pause", tooltip="pause the study and its runs: the same key lets it go on"),
    Binding("p,u", "continue_run", "continue", tooltip="let the paused study go on"),
    Binding("R", "resume_run", "resume", tooltip="go on with what is left; what has failed is tried again"),
)


class SteeringScreen(ActingScreen, inherit_bindings=False):
    """Its subjects are the folders of studies, as rows."""

    STOPPING = ("Stop {} and all its runs?", "Every run of it writes a checkpoint and ends; R goes on with them.")

    def look(self) -> Any:
        """Read what is there now."""
        raise NotImplementedError

    def resume(self, path: Path) -> str:
        return study_start.resume(path, self.lreg.data_dir)

    def act(self, *what: Any, **how: Any) -> None:
        super().act(*what, **{"then": self.look, **how})
