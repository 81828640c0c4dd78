"""The detached scheduler of a study: engine.worker, with what draws the report's figures."""

from __future__ import annotations

from engine.base import interrupts

if __name__ == "__main__":
    interrupts.hold()  # what follows takes a while

import os
import sys
from typing import Any

from engine import worker
from engine.base.control import Control
from engine.runs.store import Run
from engine.study.schedule.loop import Listener, StudyLoop, nothing

MODULE = "lreg_tui.studies.study_worker"


def draw(*arguments: Any, **options: Any) -> Any:
    """Draw the report's figures. matplotlib is imported only now."""
    from lreg_tui.figures import page

    return page.draw_one(*arguments, **options)


def make_loop(
    run: Run,
    control: Control,
    data_dir: str | os.PathLike[str] | None = None,
    on_look: Listener = nothing,
) -> StudyLoop:
    return StudyLoop(run, control, data_dir, draw=draw, on_look=on_look)


def main() -> int:
    return worker.main(make_loop=make_loop)


if __name__ == "__main__":
    sys.exit(main())
