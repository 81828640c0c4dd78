"""Which study to start, what it asks for and how long that may take; its name, how many runs at once, and its start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text
from textual import work
from textual.widgets import Static

from engine.base.errors import LregError
from engine.runs.store import RunStore
from lreg_tui.presets.picking import Offer, PickOfferScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.studies import study_start
from lreg_tui.studies.study_start import Started
from lreg_tui.text.present import clean, clean_block, count
from lreg_tui.widgets.launching import Field, LaunchingScreen
from lreg_tui.widgets.threads import off_the_loop

JOBS = re.compile(r"\d{1,4}")
LONGEST_NAME = 40


class PickStudyScreen(PickOfferScreen):
    """Below the list stands what the highlighted study asks for."""

    HEADING = "New study: which one?"
    DEFAULT_CSS = """
    PickStudyScreen #size { height: 6; margin-top: 1; padding: 0 1; background: $surface; }
    """

    def make_preview(self) -> Static:
        return Static(id="size", markup=False)

    @work(group="preview", exclusive=True)
    async def preview(self, offer: Offer) -> None:
        line = self.query_one("#size", Static)
        line.update(Text("counting …", "dim"))
        rows = self.app.feed.rows  # type: ignore[attr-defined]
        line.update(await off_the_loop(lambda: weighed(offer.reference, rows), "study"))


class LaunchStudyScreen(LaunchingScreen[Started]):
    """Ends with the study that was started, or None."""

    HEADING = "Start a study"
    WAITING = "the data is looked for first"
    DEFAULT_CSS = """
    LaunchStudyScreen {
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
        jobs = self.value("jobs")
        return "" if JOBS.fullmatch(jobs) else f"jobs: found {jobs or 'nothing'}; allowed: an integer from 0 to 9999"

    def start(self, values: Mapping[str, str]) -> Started:
        return study_start.start(self.offer.reference, self.store, values["name"], int(values["jobs"]), self.data_dir)


def weighed(reference: str, rows: Sequence[RunRow]) -> Text:
    """What a study asks for, in words; or what is wrong with it."""
    try:
        size = study_start.size_of(reference, rows)
    except LregError as error:
        return Text(clean_block(str(error)), "bold red")
    plan = size.plan
    arms = ", ".join(arm.name for arm in plan.arms)
    seeds = len(plan.seeds)
    text = Text.assemble((count(size.runs, "run"), "bold"), f" ({size.runs // seeds} x {count(seeds, 'meta-seed')})")
    text.append(f", then {count(size.transfers, 'transfer')}" if size.transfers else "")
    if plan.search is not None:
        text.append(f"; a search of {plan.search.trials} trials for each arm with axes")
    text.append(f"\narms: {clean(arms, 400)}", "dim")
    return text.append(f"\n{clean(size.estimate, 300)}")
