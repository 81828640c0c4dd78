"""PresetForm: a preset as a list of settings, a line each. It changes nothing, it tells which edits were asked for.

form.show(tables)  # from preset_edit.tables_of
on_preset_form_edited(event): text = event.change(text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import set_cell_size
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.base.draws import DrawableSetting
from engine.base.settings import show
from engine.presets.catalog import NAMED_TABLES, named_table
from lreg_tui.presets import toml_edit
from lreg_tui.presets.preset_edit import HERE, FormRow, FormTable, shown, typed, with_value, words_of
from lreg_tui.text.present import clean, shorten
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList, pick_one

MUTED = "$foreground 55%"  # $text-muted is bright in a Content
NAME_WIDTH, MARK_WIDTH = 19, 2
MARKS = {HERE: ("● ", "$primary"), "": ("  ", MUTED)}
INHERITED = ("○ ", "$foreground")
ADD = "add:"  # and a table in which members stand by name
ADDED_ABOVE = {"objective": "penalty", "meta": "objective.terms"}  # what is added above which table
LEGEND = "   ● set here, even to the default   ○ inherited"


class FormLine(NamedTuple):
    """`identity`: a setting's path, table:PATH for a heading, or ADD and a table. The cursor may pass over headings."""

    identity: str
    content: Content
    is_passed_over: bool = False


class SettingList(OptionList):
    """Up and down pass over headings."""

    HELP_TITLE = "Settings"
    BINDINGS: ClassVar[list[BindingType]] = [bind("open", "select", "edit", "change the setting under the cursor")]


class PresetForm(Vertical):
    """Every setting of every table: where its value comes from, what is allowed, and what is wrong with it."""

    HELP_TITLE = "Form"
    DEFAULT_CSS = """
    PresetForm {
        & > SettingList {
            height: 1fr; border: none; padding: 0 0 0 1; background: $background; background-tint: transparent;
            text-wrap: nowrap; text-overflow: ellipsis;
            scrollbar-size-vertical: 1;
            &:focus { border: none; background-tint: transparent; }
            & > .option-list--option-highlighted {
                background: $foreground 10%; color: $foreground; text-style: none;
            }
            &:focus > .option-list--option-highlighted {
                background: $primary 30%; color: $foreground; text-style: none;
            }
            & > .option-list--option-disabled { color: $foreground; }
        }
        & > #filter { height: 1; padding: 0 1; background: $panel; display: none; }
        & > #about {
            height: 3; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [bind("search", "filter", "filter", "list the settings with these words")]

    @dataclass
    class Edited(Message):
        """The text is to be changed; then the cursor goes to `path`, if there is one."""

        change: Callable[[str], str]
        path: str = ""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tables: Sequence[FormTable] = ()
        self.addable: Mapping[str, Sequence[str]] = {}  # penalties and terms that are not there
        self.offers: Mapping[str, Sequence[Choice]] = {}  # what can be picked for settings whose choices are not known
        self.words = ""  # that narrow the list down
        self.only_here = False
        self.lines: list[FormLine] = []
        self._rows: dict[str, FormRow] = {}
        self.listed = SettingList(markup=False)

    def compose(self) -> ComposeResult:
        yield Static(id="filter", markup=False)
        yield self.listed
        yield Static("reading the settings …", id="about", markup=False)

    @property
    def current(self) -> str:
        """The identity of the line under the cursor; "" where there is none."""
        index = self.listed.highlighted
        return self.lines[index].identity if index is not None and index < len(self.lines) else ""

    # -- showing -------------------------------------------------------------------------------------------------------

    def show(self, tables: Sequence[FormTable], addable: Mapping[str, Sequence[str]] | None = None) -> None:
        """Show these tables. `addable`: names of the penalties and terms that can be added, by table."""
        self.tables, self.addable = tables, addable or {}
        self._rows = {row.path: row for table in tables for row in table.rows}
        self._list()

    def on_resize(self) -> None:
        self._list()

    def highlight(self, path: str) -> None:
        """Go to a setting, or to the table that it would be in."""
        ids = [line.identity for line in self.lines]
        candidates = (path, f"table:{path}", f"table:{path.rpartition('.')[0]}")
        index = next((ids.index(identity) for identity in candidates if identity in ids), None)
        if index is not None:  # of a heading that is passed over: the setting below it
            self.listed.highlighted = min(index + self.lines[index].is_passed_over, len(ids) - 1)

    def _list(self) -> None:
        """Only lines whose content is another one are drawn; the cursor stays on its line."""
        if not self.tables:
            return
        current, before = self.current, self.lines
        lines = self.lines = list(self._lines(self.words.lower().split()))
        if [line[::2] for line in lines] == [line[::2] for line in before]:
            for index, (new, old) in enumerate(zip(lines, before, strict=True)):
                if not new.content.is_same(old.content):
                    self.listed.replace_option_prompt_at_index(index, new.content)
        else:
            offset = self.listed.scroll_offset
            self.listed.set_options([Option(line.content, line.identity, line.is_passed_over) for line in lines])
            ids = [line.identity for line in lines]
            first = next((index for index, line in enumerate(ids) if not line.startswith(("table:", ADD))), None)
            self.listed.scroll_to(y=offset.y, animate=False, immediate=True)
            self.listed.highlighted = ids.index(current) if current in ids else first
        self._explain()

    def _lines(self, words: Sequence[str]) -> Iterator[FormLine]:
        is_whole = not words and not self.only_here
        for table in self.tables:
            section = ADDED_ABOVE.get(table.path, "")
            if is_whole and self.addable.get(section):
                yield FormLine(f"{ADD}{section}", Content.styled(f"  + add a {NAMED_TABLES[section]}", MUTED))
            rows = [row for row in table.rows if self._fits(row, table, words)]
            if rows or (table.is_member and not words and (is_whole or table.origin)):
                yield FormLine(f"table:{table.path}", heading(table), not table.is_member)
                yield from (FormLine(row.path, line(row, self.size.width)) for row in rows)

    def _fits(self, row: FormRow, table: FormTable, words: Sequence[str]) -> bool:
        if self.only_here and row.origin != HERE and row.problem is None:
            return False
        text = f"{row.path} {table.path or 'preset'} {row.setting.help} {shown(row.value)}".lower()
        return all(word in text for word in words)

    @on(OptionList.OptionHighlighted)
    def _explain(self, event: OptionList.OptionHighlighted | None = None) -> None:
        """Help, what is allowed and what is wrong, for the line under the cursor."""
        if event is not None:
            event.stop()
        row = self._rows.get(self.current)
        if row is not None:
            about = about_row(row)
        elif self.current.startswith(ADD):
            about = Content.styled(f"enter: one of {', '.join(self.addable[self.current.removeprefix(ADD)])}", MUTED)
        else:
            concept = NAMED_TABLES.get(named_table(self.current.removeprefix("table:")), "table")
            words = f"del takes this {concept} away" if self.current else "nothing fits the filter"
            about = Content.styled(words, MUTED)
        self.query_one("#about", Static).update(about)

    # -- changing ------------------------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    def _change(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        row = self._rows.get(self.current)
        if self.current.startswith(ADD):
            self.add(self.current.removeprefix(ADD))
        elif row is None:
            return
        elif row.setting.types == ("bool",) and isinstance(row.value, bool):
            self._set(row, toml_edit.toml_of(not row.value))
        elif row.setting.choices and not row.setting.types[0].endswith("[]"):
            usual = row.setting.default
            choices = [Choice(name, help="default" if name == usual else "") for name in row.setting.choices]
            self._pick(row, choices, several=isinstance(row.setting, DrawableSetting))
        elif row.path in self.offers:
            self._pick(row, self.offers[row.path])
        else:
            self._type(row)

    def _set(self, row: FormRow, raw: str) -> None:
        self.post_message(self.Edited(lambda text: with_value(text, row.path, raw)))

    def _pick(self, row: FormRow, choices: Sequence[Choice], *, several: bool = False) -> None:
        """`several`: what is marked is drawn from; where nothing is, enter picks one."""
        is_list = isinstance(row.value, (list, tuple))
        marked = [str(item) for item in row.value] if is_list else [] if several else [str(row.value)]

        def take(picked: tuple[str, ...] | None) -> None:
            value = picked[0] if picked and len(picked) == 1 else list(picked or ())
            if value and value != row.value:
                self._set(row, toml_edit.toml_of(value))

        title = f"{row.path}: {row.setting.help}"
        self.app.push_screen(PickList(title, choices, marked, several=several, never_none=True), take)

    def _type(self, row: FormRow) -> None:
        def wrong(text: str) -> str:
            problem = typed(row.setting, text)[1]
            return "" if problem is None else words_of(problem)

        def take(text: str | None) -> None:
            if text is not None and text.strip() != shown(row.value):
                self._set(row, typed(row.setting, text)[0])

        note = f"{row.setting.help}: {row.setting.describe()}; default {default_of(row)}"
        self.app.push_screen(PromptScreen(row.path, shown(row.value), note=note, check=wrong, replaces=True), take)

    def action_reset(self) -> None:
        """Take the key, or the penalty or term, out of the text."""
        path = self.current.removeprefix("table:")
        if not path or path.startswith(ADD):
            return
        said_by = {table.path: table.origin for table in self.tables} | {
            row.path: row.origin for row in self._rows.values()
        }
        origin = said_by.get(path)
        if origin == HERE:
            goes_to = f"{ADD}{named_table(path)}" if self.current.startswith("table:") else ""
            self.post_message(self.Edited(lambda text: toml_edit.remove(text, path), goes_to))
        elif origin and self.current.startswith("table:"):
            words = f"{path} is inherited from {origin}: weight = 0 makes it count nothing"
            self.app.notify(clean(words), severity="warning", markup=False)
        else:
            self.app.notify(clean(f"{path} is not set here: there is nothing to take away"), markup=False)

    def add(self, section: str) -> None:
        """Pick a penalty, or a term of the objective, and add its table to the text."""
        if names := self.addable.get(section):
            add = lambda name: self.add_table(f"{section}.{name}")  # noqa: E731
            pick_one(self.app, f"add a {NAMED_TABLES[section]}", map(Choice, names), add)

    def add_table(self, path: str) -> None:
        self._narrow("")  # so that what is added is in view, and under the cursor
        self.post_message(self.Edited(lambda text: toml_edit.add_table(text, path), path))

    # -- narrowing down ------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        note = "words of a key, its help or its value"
        prompt = PromptScreen("filter", self.words, note=note, changed=self._narrow)
        self.app.push_screen(prompt, lambda words: self._narrow(words or ""))

    def _narrow(self, words: str) -> None:
        self.words = words
        line = self.query_one("#filter", Static)
        line.display = bool(words)
        line.update(f"filter: {clean(words, 100)}")
        self._list()

    def action_only_here(self) -> None:
        self.only_here = not self.only_here
        self._list()


def heading(table: FormTable) -> Content:
    """A table's name, whom a penalty or term is inherited from, and what is wrong with the table as a whole."""
    parts = [Content.styled(clean(table.path) or "preset", "$primary bold")]
    parts += [] if table.path else [Content.styled(LEGEND, MUTED)]
    if table.is_member and table.origin not in (HERE, ""):
        parts.append(Content.styled(f"  from {clean(table.origin, 40)}", MUTED))
    parts += [Content.styled(f"  {clean(problem, 120)}", "$error") for problem in table.problems]
    return Content("").join(parts)


def line(row: FormRow, width: int) -> Content:
    """Mark, name, value, and where the value comes from, or what it would be by default."""
    mark, style = MARKS.get(row.origin, INHERITED)
    value = shown(row.value) or '""'
    if row.problem is not None:
        mark, style, value = "✗ ", "$error", show(row.value)  # with the quotes that may be what is wrong
    is_here = row.origin == HERE
    default = "the default" if _is_default(row) else f"default {default_of(row)}"
    note = default if is_here else f"from {row.origin}" if row.origin else ""
    room = max(12, min(44, width - 1 - MARK_WIDTH - NAME_WIDTH - 22))  # what names and notes leave, within reason
    return Content.assemble(
        (mark, style),
        (fitted(row.setting.name, NAME_WIDTH), "bold" if is_here else ""),
        (fitted(value, room), f"{style} bold" if is_here else style),
        (f" {clean(note, 60)}", MUTED),
    )


def about_row(row: FormRow) -> Content:
    """Three lines: the key, its help, and what is wrong, or else what is allowed."""
    source = f"   from {clean(row.origin, 60)}" if row.origin else ""
    if row.origin == HERE:
        source = f"   ● set here{', to the default' * _is_default(row)}; del takes it out again"
    last = (clean(f"{row.setting.describe()}; default {default_of(row)}", 300), MUTED)
    if row.problem is not None:
        last = (f"✗ {clean(words_of(row.problem), 300)}", "$error")
    return Content.assemble((row.path, "bold"), (source, MUTED), f"\n{clean(row.setting.help, 200)}\n", last)


def _is_default(row: FormRow) -> bool:
    return shown(row.value) == shown(row.setting.default)


def default_of(row: FormRow) -> str:
    return shown(row.setting.default) or "empty"


def fitted(text: str, width: int) -> str:
    """Cut or filled to a number of columns, the last of them free."""
    return set_cell_size(shorten(text, width - 1), width)
