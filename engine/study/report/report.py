"""Report of a study: one folder with Markdown, CSV and figures, made from the folders of its runs and nothing else.

It can be written at any time: of a study that has not finished, it says what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engine.base.errors import LregError, RunError
from engine.base.files import make_folder, remove_leftovers, write_atomic
from engine.figures import Block
from engine.study.plan.plan import StudyPlan
from engine.study.report import design as report_design
from engine.study.report import figures as report_figures
from engine.study.report import markdown
from engine.study.report import results as report_results
from engine.study.report import tables as report_tables
from engine.study.report import weaknesses as report_weak
from engine.study.report.claim import Claim
from engine.study.report.claims import claims
from engine.study.report.evidence import Evidence, gather

FOLDER, FILE = "report", "report.md"
OURS = ("*.csv", "*.png")  # what a report before may have left
Draw = Callable[[Block, Path], None]
"""Draws one figure into a file; the engine itself has no plotting. May raise LregError."""

INTRODUCTION = (
    "Intervals are 95% t-intervals over the means of meta-seeds; differences are paired by meta-seed and optimizee "
    "(start and batches). With one meta-seed they are over optimizees; against a hand-designed optimizer, which "
    "has no meta-seeds, the wider of both. A comparison whose interval "
    'includes no difference is "not found": neither an effect nor its absence was shown. Every figure is also in the '
    "CSV files beside this one, with the runs that it comes from."
)


def write_report(plan: StudyPlan, folder: Path, draw: Draw | None = None) -> Path:
    """Write the report of the study in a folder into its `report` folder; returns the path of report.md.

    Each file is replaced whole, report.md last. Raises RunError where nothing can be written.
    """
    found = gather(plan, folder)
    target = folder / FOLDER
    try:
        make_folder(target)
        remove_leftovers(target)
        groups = claims(found)
        written = list(_write_tables(found, target, groups.values()))
        drawn, problems = _draw(found, target, draw)
        text = "\n".join(_sections(found, groups, drawn, problems, written))
        write_atomic(target / FILE, text)
        _remove_others(target, {*written, *drawn})
    except OSError as error:
        raise RunError(f"{error.filename or target}: {error.strerror or error}; the report was not written") from None
    return target / FILE


def _write_tables(found: Evidence, target: Path, groups: Iterable[list[Claim]]) -> Iterator[str]:
    for name, text in report_tables.tables(found, [claim for group in groups for claim in group]):
        write_atomic(target / name, text)
        yield name


def _draw(found: Evidence, target: Path, draw: Draw | None) -> tuple[dict[str, Block], list[str]]:
    """The figures that were drawn, by file name; and why others were not."""
    drawn: dict[str, Block] = {}
    problems: list[str] = []
    for name, block in report_figures.figures(found) if draw is not None else ():
        assert draw is not None
        try:
            draw(block, target / name)
        except LregError as error:
            problems.append(f"figure {markdown.code(name)} could not be drawn: {markdown.text(error)}")
        else:
            drawn[name] = block
    return drawn, problems


def _sections(
    found: Evidence, groups: dict[str, list[Claim]], drawn: dict[str, Block], problems: list[str], written: list[str]
) -> Iterator[str]:
    yield f"# Study {markdown.text(found.plan.name)}\n"
    if found.plan.description:
        yield markdown.paragraph(markdown.text(found.plan.description))
    yield markdown.paragraph(report_design.progress(found))
    yield markdown.paragraph(INTRODUCTION)
    yield from report_results.in_short(found)
    yield from report_results.numbers(found)
    yield from report_results.rules(groups)
    for title, own in groups.items():
        yield from report_results.claims(title, own)
    yield "## What weakens the conclusions\n"
    yield markdown.bullets([*report_weak.reasons(found, groups.values()), *problems])
    yield from report_results.results(found, drawn)
    yield from report_design.picked(found, drawn)
    yield from report_design.what_was_run(found)
    yield "## Files\n"
    yield markdown.bullets(f"[{name}]({name})" for name in (*written, *drawn))


def _remove_others(target: Path, kept: set[str]) -> None:
    """Files of a report before this one."""
    for path in (path for pattern in OURS for path in target.glob(pattern)):
        if path.name not in kept:
            path.unlink(missing_ok=True)
