"""A worker that waits a second where others wait ten before they say who is missing: python -m impatient RUN_PATH."""

from __future__ import annotations

import sys

from engine import worker
from engine.distributed import gloo as team_watch

team_watch.BEAT_S, team_watch.WAIT_S, team_watch.SILENT_S, team_watch.HANGING_S = 0.1, 1.0, 1.0, 0.5

if __name__ == "__main__":
    sys.exit(worker.main())
