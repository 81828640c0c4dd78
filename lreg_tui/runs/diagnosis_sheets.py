"""Diagnoses of a run's meta-gradient as sheets."""

from __future__ import annotations

from engine.runs.diagnoses import AGREES, OPPOSITE, UNCLEAR, DiagnosedPart, DiagnosisReport, Slope
from lreg_tui.text import present
from lreg_tui.text.sheets import BETTER, WORSE, Entry, Sheet

COLUMNS = ("value", "estimated [95%]", "true [95%]", "ratio", "cosine", "sign")
STYLES = {AGREES: BETTER, OPPOSITE: WORSE}


def sheet_of(report: DiagnosisReport) -> Sheet:
    """A line for every part: both derivatives by the log of the update scale, means over optimizees."""
    lines = [(part.label, _entries(part)) for part in report.parts]
    remarks = [report.about, "derivatives by the log of the update scale: above 0 descent steps less, below 0 more"]
    if any(part.verdict == UNCLEAR for part in report.parts):
        remarks.append("unclear: an interval includes 0; more optimizees (--optimizees) narrow it")
    return Sheet(report.file, "part", COLUMNS, lines, remarks)


def sentences_of(report: DiagnosisReport) -> Sheet:
    """The sign test in words, the wrong ones first."""
    order = sorted(range(len(report.parts)), key=lambda index: report.parts[index].verdict != OPPOSITE)
    rows = [(report.parts[index].verdict, [Entry(report.sentences()[index])]) for index in order]
    return Sheet(f"checkpoint {report.checkpoint}, {report.created[:16]}", "sign", ("in words",), rows)


def _entries(part: DiagnosedPart) -> list[Entry]:
    numbers = [present.number(part.value, 3), _slope(part.estimated), _slope(part.true)]
    numbers += [present.number(part.ratio, 3), present.number(part.cosine, 2)]
    return [*map(Entry, numbers), Entry(part.verdict, style=STYLES.get(part.verdict, ""))]


def _slope(slope: Slope | None) -> str:
    return present.NOTHING if slope is None else str(slope).replace(" [", "\n[")
