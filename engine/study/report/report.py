"""Report of a study: one folder with Markdown, CSV and figures, made from the folders of its runs and nothing else.

It can be written at any time: of a study that has not finished, it says what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.base.errors import LregError, RunError
from engine.base.files import make_folder, remove_leftovers, write_atomic
from engine.figures import Block
from engine.study.plan.kept import report_file
from engine.study.plan.plan import StudyPlan
from engine.study.report import claims, design, figures, results, summary, tables, weaknesses
from engine.study.report.claim import VERDICTS, Claim
from engine.study.report.evidence import Evidence, gather
from engine.study.report.markdown import bullets, code, paragraph, text

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
    """Write the report of the study in a folder to where it belongs (`report_file`); returns the path of report.md.

    Each file is replaced whole, report.md last. Raises RunError where nothing can be written.
    """
    study, file = gather(plan, folder), report_file(folder)
    target = file.parent
    try:
        make_folder(target)
        remove_leftovers(target)
        groups = claims.claims(study)
        files = dict(tables.tables(study, [claim for group in groups.values() for claim in group]))
        for name, content in files.items():
            write_atomic(target / name, content)
        drawn: dict[str, Block] = {}
        problems = []
        for name, block in figures.figures(study) if draw is not None else ():
            assert draw is not None
            try:
                draw(block, target / name)
                drawn[name] = block
            except LregError as error:
                problems.append(f"figure {code(name)} could not be drawn: {text(error)}")
        names = [*files, *drawn]
        write_atomic(file, "\n".join(_sections(study, groups, drawn, problems, names)))
        for path in (path for pattern in OURS for path in target.glob(pattern)):
            if path.name not in names:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{error.filename or target}: {error.strerror or error}; the report was not written") from None
    return file


def _sections(
    study: Evidence, groups: dict[str, list[Claim]], drawn: dict[str, Block], problems: list[str], names: list[str]
) -> Iterator[str]:
    yield f"# Study {text(study.plan.name)}\n"
    if study.plan.description:
        yield paragraph(text(study.plan.description))
    yield paragraph(design.progress(study))
    yield from summary.asked(study)
    yield from summary.found(study)
    yield from results.numbers(study)
    yield from results.pictures(drawn)
    yield "## How to read what follows\n"
    yield paragraph(INTRODUCTION)
    yield paragraph(VERDICTS)
    for title, group in groups.items():
        yield from results.claims(study, title, group)
    yield "## What weakens the conclusions\n"
    yield bullets([*weaknesses.reasons(study, [claim for group in groups.values() for claim in group]), *problems])
    yield from results.results(study)
    yield from design.picked(study, drawn)
    yield from design.what_was_run(study)
    yield "## Files\n"
    yield bullets(f"[{name}]({name})" for name in names)
