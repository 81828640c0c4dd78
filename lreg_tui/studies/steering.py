"""SteeringScreen: a screen on which studies can be stopped, paused and resumed, with all their runs."""

from __future__ import annotations

from typing import Any

from textual import work
from textual.binding import Binding

from lreg_tui.runs import actions
from lreg_tui.runs.acting import ActingScreen
from lreg_tui.studies import study_start
from lreg_tui.text.present import clean

STEERING = (
    Binding("s", "stop_run", "stop", tooltip="stop the study: every run writes a checkpoint and ends"),
    Binding("p,u", "pause_run", "pause", tooltip="pause the study and its runs: the same key lets it go on"),
    Binding("p,u", "continue_run", "continue", tooltip="let the paused study go on"),
    Binding("R", "resume_run", "resume", tooltip="go on with what is left; what has failed is tried again"),
)
STOPS = "Every run of it writes a checkpoint and ends; R goes on with them."


class SteeringScreen(ActingScreen, inherit_bindings=False):
    """Its subjects are the folders of studies, as rows."""

    def look(self) -> Any:
        """Read what is there now."""
        raise NotImplementedError

    def _looked(self) -> None:
        self.look()

    @work(group="ask", exclusive=True)
    async def action_stop_run(self) -> None:
        rows = self._fitting("stop_run")
        if rows and await self._agree(f"Stop {clean(rows[0].name, 40)} and all its runs?", STOPS, "stop"):
            self.act("stop", actions.stop, rows, then=self._looked)

    def action_pause_run(self) -> None:
        self.act("pause", actions.pause, self._fitting("pause_run"), then=self._looked)

    def action_continue_run(self) -> None:
        self.act("continue", actions.go_on, self._fitting("continue_run"), then=self._looked)

    def action_resume_run(self) -> None:
        rows = self._fitting("resume_run")
        if rows:
            resume = lambda path: study_start.resume(path, self.lreg.data_dir)  # noqa: E731
            self.act("resume", resume, rows, "going on with", self._looked)
