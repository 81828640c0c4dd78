"""SteeringScreen: a screen on which studies can be stopped, paused and resumed, with all their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual import work
from textual.screen import ModalScreen
from textual.widgets import Static

from lreg_tui.runs.acting import ActingScreen
from lreg_tui.studies import study_start
from lreg_tui.system.keys import key_of
from lreg_tui.widgets.keys import bind

STEERING = (
    bind("stop", "stop_run", tooltip="stop the study: every run writes a checkpoint and ends"),
    bind("pause", "pause_run", "pause", "pause the study and its runs: the same key lets it go on"),
    bind("pause", "continue_run", "continue", "let the paused study go on"),
    bind("resume", "resume_run", tooltip="go on with what is left; what has failed is tried again"),
)


class SteeringScreen(ActingScreen, inherit_bindings=False):
    """Its subjects are the folders of studies, as rows."""

    STOPPING = (
        "Stop {} and all its runs?",
        f"Every run of it writes a checkpoint and ends; {key_of('resume')} goes on with them.",
    )

    _is_looking = False

    def on_mount(self) -> None:
        self.set_interval(self.lreg.feed.interval, self.look)
        self.look()

    def on_screen_resume(self) -> None:
        self.look()

    @work(group="look")
    async def look(self) -> None:
        """Read what is there now, unless nobody sees it or it is being read."""
        if self._is_looking or not (self.is_current or isinstance(self.app.screen, ModalScreen)):
            return
        self._is_looking = True
        try:
            await self.read()
        finally:
            self._is_looking = False

    async def read(self) -> None:
        """Read the folders, off the loop, and show what is new."""
        raise NotImplementedError

    def say(self, where: str, what: object) -> None:
        """Only what is different is drawn again."""
        line = self.query_one(f"#{where}", Static)
        if line.content != what:
            line.update(what)  # type: ignore[arg-type]

    def resume(self, path: Path) -> str:
        return study_start.resume(path, self.lreg.data_dir)

    def act(self, *what: Any, **how: Any) -> None:
        super().act(*what, **{"then": self.look, **how})
