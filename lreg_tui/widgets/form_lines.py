"""How the lines of the preset form look: a heading, a setting, what is said about it. Content only, no widgets."""

from __future__ import annotations

from textual.content import Content

from engine.settings import Setting, show
from lreg_tui import present
from lreg_tui.preset_edit import HERE, Row, Table, shown

MUTED = "$foreground 55%"  # $text-muted is bright in a Content
NAME_WIDTH = 19
MARK_WIDTH = 2
MARKS = {HERE: ("● ", "$primary"), "": ("  ", MUTED)}
INHERITED = ("○ ", "$foreground")


def value_width(width: int) -> int:
    """Columns for values in a form of this width: what names and notes leave, within reason."""
    return max(12, min(44, width - 1 - MARK_WIDTH - NAME_WIDTH - 22))


def heading(table: Table) -> Content:
    """A table's name, whom a penalty is inherited from, and what is wrong with the table as a whole."""
    parts = [Content.styled(present.clean(table.path) or "preset", "$primary bold")]
    if table.is_penalty and table.origin not in (HERE, ""):
        parts.append(Content.styled(f"  from {present.clean(table.origin, 40)}", MUTED))
    parts += [Content.styled(f"  {present.clean(problem, 120)}", "$error") for problem in table.problems]
    return Content("").join(parts)


def line(row: Row, width: int) -> Content:
    """Mark, name, value, and where the value comes from, or what it would be by default."""
    mark, style = MARKS.get(row.origin, INHERITED)
    value = shown(row.value) or '""'
    if row.problem is not None:
        mark, style, value = "✗ ", "$error", show(row.value)  # with the quotes that may be what is wrong
    is_here = row.origin == HERE
    note = f"default {default_of(row.setting)}" if is_here else f"from {row.origin}" if row.origin else ""
    return Content.assemble(
        (mark, style),
        (fitted(row.setting.name, NAME_WIDTH), "bold" if is_here else ""),
        (fitted(value, value_width(width)), f"{style} bold" if is_here else style),
        (f" {present.clean(note, 60)}", MUTED),
    )


def about(row: Row, problem: str) -> Content:
    """Three lines: the key, its help, and what is wrong, or else what is allowed."""
    source = f"   from {present.clean(row.origin, 60)}" if row.origin else ""
    source = "   set here; del takes it out again" if row.origin == HERE else source
    allowed = f"{row.setting.describe()}; default {default_of(row.setting)}"
    last = (f"✗ {present.clean(problem, 300)}", "$error") if problem else (present.clean(allowed, 300), MUTED)
    return Content.assemble((row.path, "bold"), (source, MUTED), f"\n{present.clean(row.setting.help, 200)}\n", last)


def default_of(setting: Setting) -> str:
    return shown(setting.default) or "empty"


def fitted(text: str, width: int) -> str:
    """Cut or filled to a number of columns, the last of them free."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width - 2) + "… " if cell_len(text) >= width else set_cell_size(text, width)
