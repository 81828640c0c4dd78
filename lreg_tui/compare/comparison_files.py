"""A comparison as a file: the same text that `lreg compare` prints in that form."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.errors import LregError, printable
from engine.base.files import strict, write_atomic
from lreg_tui.compare import comparison_sheets
from lreg_tui.system import launch
from lreg_tui.text import sheets

if TYPE_CHECKING:
    from engine.comparison import Comparison
    from lreg_tui.compare.comparing import ComparisonResult

FORMS = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}
PICTURES = (".png", ".svg", ".pdf")
ENDINGS = (*FORMS, *PICTURES)


def text(compared: Comparison, form: str) -> str:
    """`form`: markdown, csv, latex or json."""
    from engine.comparison import forms
    from engine.export.tables import cell

    if form == "json":
        return json.dumps(strict(forms.as_json(compared)), allow_nan=False) + "\n"
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(forms.TIDY_COLUMNS)
        writer.writerows([cell(value) for value in row] for row in forms.tidy(compared))
        return file.getvalue()
    render, escape = (
        (sheets.markdown, sheets.markdown_text) if form == "markdown" else (sheets.latex, sheets.latex_text)
    )
    parts = [render(sheet) for sheet in comparison_sheets.sheets(compared)]
    return "\n".join([*parts, *(f"Note: {escape(note)}.\n" for note in compared.notes)])


def save(compared: Comparison, path: Path) -> None:
    """Write the form that the file's name ends in. Raises LregError where it cannot be written."""
    try:
        write_atomic(path, text(compared, FORMS[path.suffix.lower()]))
    except OSError as error:
        raise LregError(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from None


def draw(result: ComparisonResult, path: Path, figures: Sequence[str]) -> None:
    """Draw figures with `lreg plot` in a process of its own. Raises LregError with what it complains about."""
    request, radius = result.request, result.comparison.radius
    arguments = ["plot", *map(str, request.paths), "-o", str(path)]
    arguments += [word for name in figures for word in ("--figure", name)]
    arguments += ["--task", request.task.split(" ")[0]] if request.task else []
    arguments += ["--step", str(request.step)] if request.step is not None else []
    arguments += ["--radius", radius] if radius else []
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        code = launch.start_helper("lreg_tui.cli.app", arguments, said).wait()
        if code:
            lines = said.read_text(errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise LregError(" / ".join(errors or lines[-1:]) or f"lreg plot: exit code {code}")


def wrong_name(name: str) -> str:
    """What is wrong with the name of a file to save to; empty if nothing is."""
    path = target(name)
    if path.suffix.lower() not in ENDINGS:
        return f"found {path.name!r}; allowed: a name that ends in {', '.join(ENDINGS)}"
    if not str(path).isprintable():
        return f"found {str(path)!r}; allowed: a name without control characters"
    if os.path.isdir(path):  # which is never an error: names may be too long, or in folders that are closed to us
        return f"{path}: a folder"
    return "" if os.path.isdir(path.parent) else f"{path.parent}: no such folder"


def target(name: str) -> Path:
    """The file that somebody means by a name."""
    return Path(os.path.expanduser(name.strip()))  # of a user who is not known, as it stands
