"""LaunchStudyScreen: name of a study, how many of its runs at once, and its start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from engine.runs.store import RunStore
from lreg_tui.presets.offers import Offer
from lreg_tui.studies import study_start
from lreg_tui.studies.study_start import Started
from lreg_tui.text.present import clean
from lreg_tui.widgets.launching import Field, LaunchingScreen

JOBS = re.compile(r"\d{1,4}")
LONGEST_NAME = 40


class LaunchStudyScreen(LaunchingScreen[Started]):
    """Ends with the study that was started, or None."""

    HEADING = "Start a study"
    WAITING = "the data is looked for first"
    DEFAULT_CSS = """
    LaunchStudyScreen {
        & > Vertical { width: 76; }
        #about { max-height: 4; }
        #message { max-height: 8; }
    }
    """

    def __init__(self, offer: Offer, store: RunStore, data_dir: Path | None = None) -> None:
        name = clean(Path(offer.name).stem, LONGEST_NAME)
        fields = (
            Field("name", name, "what the study is called; its runs are called after it"),
            Field("jobs", "0", "runs at once; 0: as many as fit"),
        )
        super().__init__(clean(f"{offer.reference}: {offer.about}"), fields)
        self.offer = offer
        self.store = store
        self.data_dir = data_dir

    def problem(self) -> str:
        """The rest of a name is judged with the study."""
        if len(self.value("name")) > LONGEST_NAME:
            return f"name: found {len(self.value('name'))} characters; allowed: {LONGEST_NAME} at most"
        found = self.value("jobs")
        return "" if JOBS.fullmatch(found) else f"jobs: found {found or 'nothing'}; allowed: an integer from 0 to 9999"

    def start(self, values: Mapping[str, str]) -> Started:
        return study_start.start(self.offer.reference, self.store, values["name"], int(values["jobs"]), self.data_dir)
