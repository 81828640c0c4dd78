"""Sheets: tables of text that are shown on a terminal, or pasted as Markdown or LaTeX.

On a terminal a sheet is complete at every width: columns that do not fit side by side stand below each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape as html_escape
from typing import TYPE_CHECKING, Any

from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BETTER, WORSE = "green", "red"  # styles of verdicts
GAP = 2  # between two columns
MOST_OF_LABEL = 0.4  # share of a terminal's width that labels may take before they are folded
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$&#])")
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": r"{[}",
    "]": r"{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
}


@dataclass(frozen=True)
class Entry:
    """A cell: text (a line break where it may be broken), whether it is the best of its column, and a colour."""

    text: str
    best: bool = False
    style: str = ""


@dataclass(frozen=True)
class Sheet:
    """A title, a heading for the labels and one for each column, rows (label, cells), and remarks below."""

    title: str
    heading: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]
    remarks: Sequence[str] = field(default=())


def translated(sheet: Sheet, word: Callable[[str], str]) -> Sheet:
    """The sheet in other characters, for terminals that lack some. They take part in measuring its columns."""
    rows = [
        (word(label), [replace(entry, text=word(entry.text)) for entry in entries]) for label, entries in sheet.rows
    ]
    columns, remarks = list(map(word, sheet.columns)), list(map(word, sheet.remarks))
    return Sheet(word(sheet.title), word(sheet.heading), columns, rows, remarks)


def markdown(sheet: Sheet) -> str:
    """The sheet as a Markdown table; the best in bold."""
    headings, *rows = _cells(sheet, markdown_text, "**{}**")
    lines = [headings, ["---", *["---:"] * len(sheet.columns)], *rows]
    parts = [f"### {markdown_text(sheet.title)}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    return "\n\n".join([*parts, *map(markdown_text, sheet.remarks)]) + "\n"


def latex(sheet: Sheet) -> str:
    r"""The sheet as a LaTeX table; the best in \textbf. It needs \usepackage{booktabs}."""
    headings, *rows = (" & ".join(cells) + r" \\" for cells in _cells(sheet, latex_text, r"\textbf{{{}}}"))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(sheet.title)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}", r"\toprule", headings, r"\midrule", *rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {latex_text(remark)}" for remark in sheet.remarks]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(sheet: Sheet) -> str:
    """The sheet as an HTML table; the best in bold."""
    headings, *rows = _cells(sheet, lambda text: "<br>".join(map(html_text, text.split("\n"))), "<b>{}</b>")
    lines = [f"<h3>{html_text(sheet.title)}</h3>" if sheet.title else "", "<div class=scroll><table><tr>"]
    lines += [f"<th>{heading}</th>" for heading in headings]
    for cells in rows:
        lines += ["<tr>", *(f"<td>{cell}</td>" for cell in cells)]
    return "\n".join([*lines, "</table></div>", *(f"<p>{html_text(remark)}</p>" for remark in sheet.remarks)])


def _cells(sheet: Sheet, escape: Callable[[str], str], best: str) -> Iterator[list[str]]:
    """The headings, then each row, in some markup; `best`: what is the best of its column."""
    yield list(map(escape, (sheet.heading, *sheet.columns)))
    for label, entries in sheet.rows:
        yield [escape(label), *((best if entry.best else "{}").format(escape(entry.text)) for entry in entries)]


def tables(sheet: Sheet, console: Console) -> Iterator[RenderableType]:
    """What Rich prints for the sheet: as many tables as its columns need at the console's width."""
    from rich.padding import Padding

    if sheet.title:
        yield present.text(sheet.title, "bold")
    labels = [sheet.heading, *(label for label, _ in sheet.rows)]
    room = max(max(map(len, labels)), 1)
    if room + sum(GAP + _width(sheet, index) for index in range(len(sheet.columns))) > console.width:
        room = min(room, max(int(console.width * MOST_OF_LABEL), 8))
    for number, part in enumerate(_parts(sheet, console.width - room)):
        yield from [present.text("")] if number else []
        yield _table(sheet, part, room)
    for remark in sheet.remarks:
        yield Padding(present.text(remark, "dim"), (0, 0, 0, 2), expand=False)


def _parts(sheet: Sheet, room: int) -> list[list[int]]:
    """The columns that stand side by side, table by table."""
    parts: list[list[int]] = [[]]
    left = room
    for index in range(len(sheet.columns)):
        needed = GAP + _width(sheet, index)
        if needed > left and parts[-1]:
            parts.append([])
            left = room
        left -= needed
        parts[-1].append(index)
    return parts


def _width(sheet: Sheet, index: int) -> int:
    """How many columns of the terminal the longest line takes."""
    from rich.cells import cell_len

    texts = [sheet.columns[index], *(entries[index].text for _, entries in sheet.rows)]
    return max(cell_len(present.clean(line)) for text in texts for line in text.split("\n"))


def _table(sheet: Sheet, part: Sequence[int], room: int) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column(_lines(sheet.heading), overflow="fold", width=room)
    for index in part:
        table.add_column(_lines(sheet.columns[index]), justify="right", overflow="fold")
    for label, entries in sheet.rows:
        cells = [_lines(entries[index].text, _style(entries[index])) for index in part]
        table.add_row(_lines(label), *cells)
    return table


def _style(entry: Entry) -> str:
    return " ".join(filter(None, ["bold" if entry.best else "", entry.style]))


def _lines(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    return Text("\n".join(present.clean(line) for line in text.split("\n")), style=style)


def html_text(text: Any) -> str:
    """Text on one line that HTML shows as it stands."""
    return html_escape(present.clean(text, 4000))


def markdown_text(text: str) -> str:
    """Text on one line that Markdown shows as it stands."""
    return MARKDOWN.sub(r"\\\1", present.clean(text))


def latex_text(text: str) -> str:
    """Text on one line that LaTeX shows as it stands."""
    return "".join(LATEX.get(character, character) for character in present.clean(text))
