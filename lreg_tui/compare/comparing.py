"""What the compare screen shows of some runs: computed off its loop, and again when transfer files have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from engine.base.settings import show
from engine.presets.tables import stages
from engine.runs import notes
from engine.runs.store import RunReader
from lreg_tui.charts.curve import ChartLine
from lreg_tui.compare import comparison_sheets
from lreg_tui.runs import run_files
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.metric_panel import Shown
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.sheets import Entry, Sheet
from lreg_tui.widgets import themes

if TYPE_CHECKING:
    from engine.comparison import Comparison, ComparisonTable
    from engine.figures.base import Panel

EVERY = "every task"
MOST = 6  # arms side by side
MOST_RUNS = 36
DIFFERS = "bold yellow"
STAR = "★ best mean; 4 says what is clear"

NO_TRANSFERS = f"No transfer evaluations of these runs yet: {key_of('transfer')} starts some."
NO_PAIRS = f"The reference has no inner step in common with the others: {key_of('transfer')} starts evaluations."
ONE_RUN = "One run only: mark more on the dashboard, and compare them."
ONE_ARM = "One arm only: these runs differ in nothing but their seed."
CHARTS = ("curves", "sharpness", "landscape")  # tabs on one task
MEASURED = ("results", "differences", "sharpness")  # tabs that miss what was not evaluated

Stamp = tuple[object, ...]


@dataclass(frozen=True)
class ComparisonRequest:
    """Which runs, against which of them, where. None: what `lreg compare` takes by itself."""

    paths: tuple[Path, ...]
    reference: Path | None = None
    task: str | None = None
    step: int | None = None


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison, what could be asked for instead, and the panels of its first task's charts (None: no data)."""

    request: ComparisonRequest
    stamp: Stamp
    comparison: Comparison
    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    sharpness: Panel | None
    curves: Panel | None

    @property
    def chart_task(self) -> str:
        """The one whose charts are shown: that on which most arms were evaluated."""
        table = chart_table(self.comparison)
        return table.task if table is not None else ""

    def at_radius(self, radius: str | None) -> ComparisonResult:
        """The same with another radius to show, one of those measured."""
        if radius is None or radius not in self.comparison.radii:
            return self
        return replace(self, comparison=replace(self.comparison, radius=radius))


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """Changes whenever a transfer file or a checkpoint of these runs does, or what people call them."""
    return tuple((run_files.stamp(RunReader(path)), notes.read(path)) for path in paths)


def look(request: ComparisonRequest) -> ComparisonResult:
    """Compare. Takes a few tenths of a second. Raises LregError where what is wanted was not measured."""
    from engine import comparison as comparisons

    stamp = stamp_of(request.paths)  # before reading: what is written meanwhile makes it look again
    reference = RunReader(request.reference) if request.reference is not None else None
    compared = comparisons.compare(
        [RunReader(path) for path in request.paths], reference=reference, task=request.task, step=request.step
    )
    every, _ = comparisons.collect(compared.arms)
    task_names = {table.task for table in compared.tables}
    outcomes = [task for name, task in every.items() if name in task_names or not task_names]
    steps = sorted({step for task in outcomes for entry in task.entries for step in entry.steps})
    sharpness, curves = _panels(compared, request.step)
    return ComparisonResult(request, stamp, compared, tuple(every), tuple(steps), sharpness, curves)


def chart_table(compared: Comparison) -> ComparisonTable | None:
    """The table of the task on which most arms were evaluated; the first of those."""
    counts = [sum(row.kind == "arm" for row in table.rows) for table in compared.tables]
    return compared.tables[counts.index(max(counts))] if counts else None


def _panels(compared: Comparison, step: int | None) -> tuple[Panel | None, Panel | None]:
    """Sharpness against the radius, and the learning curves, of the task whose charts are shown."""
    table = chart_table(compared)
    if table is None:
        return None, None
    from engine.figures import evaluated, transfers

    task = table.task
    read = evaluated(compared.arms, task=task, step=step)
    panels = [
        [panel for panel in make(read) if task in panel.title] for make in (transfers.sharpness, transfers.curves)
    ]
    sharpness, curves = (matching[0] if matching else None for matching in panels)
    return sharpness, curves


def numbers_of(compared: Comparison, paths: Sequence[Path], by_arm: bool) -> dict[str, tuple[int, ...]]:
    """The numbers of each arm's colours and markers, by its label: its own, or those of its runs in their order."""
    if by_arm:
        return {arm.label: (number,) for number, arm in enumerate(compared.arms)}
    numbers = {path: index for index, path in enumerate(paths)}
    return {arm.label: tuple(sorted(numbers[run.reader.path] for run in arm.runs)) for arm in compared.arms}


def curves_of(result: ComparisonResult | None, rows: Sequence[RunRow], by_arm: bool) -> list[Shown]:
    """What the curves are of, with labels: the arms, each the mean of its runs, or the runs."""
    if result is None or not by_arm:
        return [(row.id, present.clean(row.name, 40)) for row in rows]
    ids = {row.path: row.id for row in rows}
    arms = [
        (tuple(ids[run.reader.path] for run in arm.runs if run.reader.path in ids), present.clean(arm.label, 40))
        for arm in result.comparison.arms
    ]
    return [(arm_ids[0] if len(arm_ids) == 1 else arm_ids, label) for arm_ids, label in arms if arm_ids]


def chart_lines(panel: Panel | None, numbers: Mapping[str, Sequence[int]], bright: int | None) -> list[ChartLine]:
    """The lines of a panel for a chart: arms in the first of their colours, controls and baselines dim behind, and all
    but the one with the number `bright`."""
    if panel is None:
        return []
    lines, behind = [], count(max(max(of_arm) for of_arm in numbers.values()) + 1)  # those count kind by kind
    for line in panel.lines:
        is_arm = line.who.kind == "arm"
        look = {
            "colour": numbers[line.who.label][0] if is_arm else next(behind),
            "dim": not is_arm or not (bright is None or bright in numbers[line.who.label]),
        }
        lines.append(ChartLine.between(present.clean(line.who.label, 60), line.x, line.y, line.low, line.high, **look))
    return sorted(lines, key=lambda line: line.dim)


def settings_sheets(compared: Comparison, everything: bool) -> Iterator[Sheet]:
    """What differs between the presets; or every setting, with what differs told apart."""
    sheet = comparison_sheets.settings_sheet(compared)
    if not everything or len(compared.arms) == 1:
        yield replace(sheet, rows=[(key, _against(compared, entries)) for key, entries in sheet.rows])
        return
    flat = [{} if arm.preset is None else arm.preset.flat() for arm in compared.arms]
    rows = []
    for key in dict.fromkeys(key for values in flat for key in values):
        entries = [Entry(show(values[key]) if key in values else present.NOTHING) for values in flat]
        differs = len({entry.text for entry in entries}) > 1
        rows.append((f"≠ {key}" if differs else f"  {key}", _against(compared, entries) if differs else entries))
    yield Sheet("every setting; ≠ where they differ", "setting", sheet.columns, rows)


def _against(compared: Comparison, entries: Sequence[Entry]) -> list[Entry]:
    """The settings of one key; those that differ from the reference arm's stand out."""
    usual = entries[compared.arms.index(compared.reference)].text if len(entries) > 1 else None
    return [replace(entry, style=DIFFERS if usual not in (None, entry.text) else "") for entry in entries]


def result_sheets(compared: Comparison) -> Iterator[Sheet]:
    """For every task its table, then how meta-training ended. Of a lone arm nothing is marked as the best."""
    for table in compared.tables:
        sheet = comparison_sheets.table_sheet(table, compared.radius, list(compared.controls.values()))
        if len(compared.arms) == 1:
            rows = [(label, [replace(entry, best=False) for entry in entries]) for label, entries in sheet.rows]
            sheet = replace(sheet, rows=rows)
        yield sheet
    yield comparison_sheets.runs_sheet(compared)


def with_legend(sheet: Sheet) -> Sheet:
    """The sheet with a line that says what its star means, where it has one."""
    has_star = any(entry.best for _, entries in sheet.rows for entry in entries)
    return replace(sheet, remarks=[*sheet.remarks, STAR]) if has_star else sheet


def without_results(compared: Comparison, tables: Sequence[ComparisonTable]) -> list[str]:
    """Labels of the arms that have no row in these tables."""
    with_results = {row.arm for table in tables for row in table.rows if row.kind == "arm"}
    return [arm.label for arm in compared.arms if arm.label not in with_results]


def landscape_of(compared: Comparison) -> tuple[str, int] | None:
    """Task and inner steps whose landscape is looked at: those of the charts, else as meta-trained."""
    table = chart_table(compared)
    if table is not None:
        return table.task.split(" ")[0], table.inner_step
    preset = next((arm.preset for arm in compared.arms if arm.preset is not None), None)
    if preset is None:
        return None
    task = preset.fixed_tasks()[0]
    return f"{task['dataset']}/{task['optimizee']}", max(stages(preset["meta"]))


def notes_of(compared: Comparison) -> list[str]:
    damaged = compared.damaged_files
    left_out = [f"{damaged} damaged transfer file{'s are' if damaged > 1 else ' is'} left out"] if damaged else []
    return [*compared.notes, *left_out]


# -- the lines around them -------------------------------------------------------------------------------------------


def head(result: ComparisonResult | None, by_arm: bool) -> Text:
    """Every arm with the markers that it, or its runs, have in the charts."""
    line = Text("compare  ", "bold", no_wrap=True, overflow="ellipsis")
    if result is None:
        return line
    compared = result.comparison
    numbers = numbers_of(compared, result.request.paths, by_arm)
    for arm in compared.arms:
        line.append(" ")
        for number in numbers[arm.label]:
            line.append(themes.MARKERS[number % MOST], themes.SERIES[number % MOST])
        line.append(f" {present.clean(arm.label, 40)}", "not bold")
        seeds = {run.meta_seed for run in arm.runs}
        repeats = f"{len(arm.runs)} {'seeds' if len(seeds) == len(arm.runs) else 'runs'}"
        remarks = [repeats] if len(arm.runs) > 1 else []
        remarks += ["reference"] if len(compared.arms) > 1 and arm is compared.reference else []
        line.append(f" ({', '.join(remarks)}) " if remarks else " ", "dim not bold")
    return line


def where(result: ComparisonResult, tab: str) -> Text:
    """What the tables and charts are about, and which runs are not in them."""
    compared = result.comparison
    if not compared.tables:
        return Text(NO_TRANSFERS)
    tables = [table for table in compared.tables if tab not in CHARTS or table.task == result.chart_task]
    steps = ", ".join(map(str, sorted({table.inner_step for table in tables})))
    task = tables[0].task if len(tables) == 1 else f"{EVERY} ({len(tables)})"
    radius = f"radius {compared.radius} of {', '.join(compared.radii)}" if compared.radius else ""
    words = [" · ".join(filter(None, [task, f"after {steps} inner steps", radius]))]
    if tab in MEASURED and (missing := without_results(compared, tables)):
        words.append(f"{named(missing)}: no evaluation {_yet(result, tab)}, {key_of('transfer')} starts one")
    return Text("\n").join(map(present.text, words))


def why_empty(result: ComparisonResult) -> str:
    compared = result.comparison
    if not compared.tables:
        return NO_TRANSFERS
    if len(compared.arms) == 1:
        return ONE_ARM if len(compared.runs) > 1 else ONE_RUN
    reference, missing = compared.reference.label, without_results(compared, compared.tables)
    yet, starts = _yet(result, "differences"), f"{key_of('transfer')} starts one"
    if reference in missing:
        return f"{reference} has no evaluation {yet}: {key_of('reference')} picks another reference, {starts}."
    if len(missing) == len(compared.arms) - 1:
        return f"Only {reference} has an evaluation {yet}: {starts} of {named(missing)}."
    return NO_PAIRS


def named(labels: Sequence[str]) -> str:
    return ", ".join(present.clean(label, 40) for label in labels)


def _yet(result: ComparisonResult, tab: str) -> str:
    """`here` where there may be evaluations on other tasks or at other inner steps than those in view."""
    is_part = (
        result.request.task or result.request.step is not None or (tab in CHARTS and len(result.comparison.tables) > 1)
    )
    return "here" if is_part else "yet"


def plotting(result: ComparisonResult, path: Path, figures: Sequence[str]) -> list[str]:
    """What `lreg` is to be called with to draw figures into a file."""
    request, radius = result.request, result.comparison.radius
    arguments = ["plot", *map(str, request.paths), "-o", str(path)]
    arguments += [word for name in figures for word in ("--figure", name)]
    arguments += ["--task", request.task.split(" ")[0]] if request.task else []
    arguments += ["--step", str(request.step)] if request.step is not None else []
    return arguments + (["--radius", radius] if radius else [])
