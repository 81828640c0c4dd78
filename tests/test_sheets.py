"""Sheets on a terminal: complete at every width, the best in bold, and nothing in them is markup."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from lreg_tui.text.sheets import Entry, Sheet, latex, markdown, tables, translated

SHEET = Sheet(
    "a [bold]title[/bold]",
    "optimizer",
    ["train loss", "test\naccuracy", "a column"],
    [
        ("one", [Entry("0.1 ± 0.2", best=True), Entry("1"), Entry("x")]),
        ("another-one-with-a-long-name", [Entry("22", style="red"), Entry("2"), Entry("two\nlines")]),
    ],
    ["a remark"],
)


def printed(sheet: Sheet, width: int, **options) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, **options)
    for part in tables(sheet, console):
        console.print(part)
    return file.getvalue()


@pytest.mark.parametrize("width", [24, 40, 60, 200])
def test_a_sheet_is_complete_at_every_width(width):
    text = printed(SHEET, width)
    assert max(map(len, text.splitlines())) <= width
    for words in ("[bold]title[/bold]", "0.1 ± 0.2", "22", "two", "lines", "accuracy", "a column", "remark"):
        assert words in text
    assert text.count("one\n") <= text.count("optimizer")


def test_columns_stand_side_by_side_where_there_is_room():
    assert [printed(SHEET, width).count("optimizer") for width in (200, 40)] == [1, 2]


def test_the_best_is_bold_and_nothing_else_in_the_table():
    text = printed(SHEET, 200, force_terminal=True, color_system="standard", no_color=False)
    assert re.search(r"\x1b\[1m *0\.1 ± 0\.2", text) and re.search(r"\x1b\[31m *22", text)
    assert not re.search(r"\x1b\[1m *(1|2|x|two)\b", text)
    assert "**0.1 ± 0.2**" in markdown(SHEET) and markdown(SHEET).count("**") == 2
    assert r"\textbf{0.1 $\pm$ 0.2}" in latex(SHEET) and latex(SHEET).count(r"\textbf") == 1


def test_characters_that_a_terminal_lacks_are_replaced_before_columns_are_measured():
    plain = translated(SHEET, lambda text: text.replace("±", "+-"))
    assert "0.1 +- 0.2" in printed(plain, 200) and plain.rows[0][1][0].best


@pytest.mark.parametrize("text", ["a_b%c&d#e$f{g}h~i^j\\k", "[1] a", "x | y < z > w"])
def test_latex_and_markdown_show_text_as_it_stands(text):
    """Undoing the escapes gives the text back."""
    sheet = Sheet(text, "a", ["b"], [(text, [Entry(text)])])
    line = markdown(sheet).splitlines()[-1]
    cells = [cell.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") for cell in line[2:-2].split(" | ")]
    assert cells == [text, text] or text.count("|")
    undone = latex(sheet)
    for word, character in (("textbackslash", "\\"), ("textasciitilde", "~"), ("textasciicircum", "^")):
        undone = undone.replace(f"\\{word}{{}}", character)
    for word, character in (("textless", "<"), ("textgreater", ">"), ("textbar", "|")):
        undone = undone.replace(f"\\{word}{{}}", character)
    for character in "&%$#_{}":
        undone = undone.replace(f"\\{character}", character)
    assert undone.replace("{[}", "[").replace("{]}", "]").count(text) == 3


def test_parts_that_stand_below_each_other_are_apart():
    lines = [line.rstrip() for line in printed(SHEET, 40).splitlines()]
    headings = [number for number, line in enumerate(lines) if line.startswith("optimizer")]
    assert len(headings) > 1 and not lines[headings[1] - 1], lines
