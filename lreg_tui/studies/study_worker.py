"""The detached scheduler of a study: engine.worker, with what draws the report's figures."""

from __future__ import annotations

from engine.base import interrupts

if __name__ == "__main__":
    interrupts.hold()  # what follows takes a while

import sys
from functools import partial
from typing import Any

from engine import worker
from engine.study.schedule.loop import StudyJob

MODULE = "lreg_tui.studies.study_worker"


def draw(*arguments: Any, **options: Any) -> Any:
    """Draw the report's figures. matplotlib is imported only now."""
    from lreg_tui.figures import page

    return page.draw_one(*arguments, **options)


def main() -> int:
    return worker.main(make_runner=partial(StudyJob, draw=draw))


if __name__ == "__main__":
    sys.exit(main())
