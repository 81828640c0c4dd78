"""A comparison as a file: the same text that `lreg compare` prints in that form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.errors import LregError, printable
from engine.base.files import strict, write_atomic
from lreg_tui.compare import comparison_sheets
from lreg_tui.text import sheets

if TYPE_CHECKING:
    from engine.comparison import Comparison

FORMS = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}


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
