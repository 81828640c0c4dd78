"""Text of the compare screen: its first line, what is in sight, and what stands in place of differences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from lreg_tui.compare import comparing
from lreg_tui.compare.comparing import EVERY, Found
from lreg_tui.text import present
from lreg_tui.widgets import themes

NO_TRANSFERS = "No transfer evaluations of these runs yet: T starts some."
NO_PAIRS = "The reference has no inner step in common with the others: T starts evaluations."
ONE_RUN = "One run only: mark more on the dashboard, and compare them."
ONE_ARM = "One arm only: these runs differ in nothing but their seed."
CHARTS = ("curves", "sharpness", "landscape")  # tabs on one task
MEASURED = ("results", "differences", "sharpness")  # tabs that miss what was not evaluated


def head(found: Found | None) -> Text:
    """Every arm with the markers that its runs have in the charts."""
    line = Text("compare  ", "bold", no_wrap=True, overflow="ellipsis")
    if found is None:
        return line
    compared = found.comparison
    numbers = comparing.numbers_of(compared, found.wanted.paths)
    for arm in compared.arms:
        line.append(" ")
        for number in numbers[arm.label]:
            line.append(themes.MARKERS[number], themes.SERIES[number])
        line.append(f" {present.clean(arm.label, 40)}", "not bold")
        seeds = {run.meta_seed for run in arm.runs}
        repeats = f"{len(arm.runs)} {'seeds' if len(seeds) == len(arm.runs) else 'runs'}"
        remarks = [repeats] if len(arm.runs) > 1 else []
        remarks += ["reference"] if len(compared.arms) > 1 and arm is compared.reference else []
        line.append(f" ({', '.join(remarks)}) " if remarks else " ", "dim not bold")
    return line


def where(found: Found, tab: str) -> Text:
    """What the tables and charts are about, and which runs are not in them."""
    compared = found.comparison
    if not compared.tables:
        return Text(NO_TRANSFERS)
    tables = [table for table in compared.tables if tab not in CHARTS or table.task == found.chart_task]
    steps = ", ".join(map(str, sorted({table.inner_step for table in tables})))
    task = tables[0].task if len(tables) == 1 else f"{EVERY} ({len(tables)})"
    radius = f"radius {compared.radius} of {', '.join(compared.radii)}" if compared.radius else ""
    words = [" · ".join(filter(None, [task, f"after {steps} inner steps", radius]))]
    if tab in MEASURED and (missing := comparing.without_results(compared, tables)):
        words.append(f"{named(missing)}: no evaluation {_yet(found, tab)}, T starts one")
    return Text("\n").join(map(present.text, words))


def why_empty(found: Found) -> str:
    """Why there are no differences to show."""
    compared = found.comparison
    if not compared.tables:
        return NO_TRANSFERS
    if len(compared.arms) == 1:
        return ONE_ARM if len(compared.runs) > 1 else ONE_RUN
    reference, missing = compared.reference.label, comparing.without_results(compared, compared.tables)
    yet = _yet(found, "differences")
    if reference in missing:
        return f"{reference} has no evaluation {yet}: r picks another reference, T starts one."
    if len(missing) == len(compared.arms) - 1:
        return f"Only {reference} has an evaluation {yet}: T starts one of {named(missing)}."
    return NO_PAIRS


def named(labels: Sequence[str]) -> str:
    return ", ".join(present.clean(label, 40) for label in labels)


def _yet(found: Found, tab: str) -> str:
    """`here` where there may be evaluations on other tasks or at other inner steps than those in view."""
    is_part = found.wanted.task or found.wanted.step is not None or (tab in CHARTS and len(found.comparison.tables) > 1)
    return "here" if is_part else "yet"
