"""PresetForm: a preset as a list of settings, a line each, edited in place. It changes nothing: it says what was asked.

form.show(tables)  # from preset_edit.tables_of; None while the settings are not known yet
on_preset_form_value_set(event): event.path, event.raw  # the value, as TOML
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Offset
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from lreg_tui.presets import form_lines
from lreg_tui.presets.form_lines import ADD, MARK_WIDTH, MUTED, NAME_WIDTH
from lreg_tui.presets.form_parts import FilterInput, SettingList
from lreg_tui.presets.preset_edit import Row, Table
from lreg_tui.presets.toml_edit import toml_of
from lreg_tui.presets.value_input import ValueInput, without_path
from lreg_tui.widgets.pick_list import Choice, PickList

LOADING = "reading the settings …"


class PresetForm(Vertical):
    """Every setting of every table: where its value comes from, what is allowed, and what is wrong with it."""

    HELP_TITLE = "Form"
    DEFAULT_CSS = """
    PresetForm {
        layers: below above;
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
        & > FilterInput { border: none; height: 1; padding: 0 1; background: $panel; display: none; }
        & > ValueInput { layer: above; }
        & > #about {
            height: 3; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
        }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/", tooltip="list the settings with these words")
    ]

    @dataclass
    class ValueSet(Message):
        """A setting is to have another value, `raw` as TOML."""

        path: str
        raw: str

    @dataclass
    class Removed(Message):
        """A key, or a penalty's table, is to go from the text."""

        path: str

    @dataclass
    class PenaltyAdded(Message):
        name: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tables: Sequence[Table] | None = None
        self.penalties: Sequence[str] = ()  # that could be added
        self.offers: Mapping[str, Sequence[Choice]] = {}  # what can be picked for settings whose choices are not known
        self.only_here = False
        self._rows: dict[str, Row] = {}

    def compose(self) -> ComposeResult:
        yield FilterInput(placeholder="words of a key, its help or its value")
        yield SettingList()
        yield Static(LOADING, id="about", markup=False)
        yield ValueInput()

    @property
    def listed(self) -> SettingList:
        return self.query_one(SettingList)

    # -- showing -------------------------------------------------------------------------------------------------------

    def show(self, tables: Sequence[Table] | None, penalties: Iterable[str] = ()) -> None:
        """Show these tables. `penalties` are the names of those that can be added."""
        self.tables, self.penalties = tables, tuple(penalties)
        self._rows = {row.path: row for table in tables or () for row in table.rows}
        self._list()

    def on_resize(self) -> None:
        self._list()

    def highlight(self, path: str) -> None:
        """Go to a setting, or to the table that it would be in."""
        self.listed.go_to(path)

    def _list(self) -> None:
        if self.tables is None:
            return
        words = self.query_one(FilterInput).value.lower().split()
        lines = form_lines.lines(self.tables, self.size.width, words, self.only_here, bool(self.penalties))
        self.listed.show(list(lines))
        self._explain()

    # -- the line under the cursor -------------------------------------------------------------------------------------

    @property
    def current(self) -> str:
        """The line under the cursor: a setting's path, table:PATH, or ADD."""
        return self.listed.current

    @on(OptionList.OptionHighlighted)
    def _explain(self, event: OptionList.OptionHighlighted | None = None) -> None:
        """Help, what is allowed and what is wrong, for the line under the cursor."""
        if event is not None:
            event.stop()
        about = self.query_one("#about", Static)
        row = self._rows.get(self.current)
        if row is not None:
            about.update(form_lines.about(row, without_path(row.problem)))
        elif self.current == ADD:
            about.update(Content.styled(f"enter: one of {', '.join(self.penalties)}", MUTED))
        elif self.current:
            about.update(Content.styled("del takes this penalty away", MUTED))
        else:
            about.update(Content.styled("nothing fits the filter", MUTED) if self.tables else LOADING)

    # -- changing ------------------------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    def _change(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        row = self._rows.get(self.current)
        if self.current == ADD:
            self.action_add_penalty()
        elif row is None:
            return
        elif row.setting.types == ("bool",) and isinstance(row.value, bool):
            self.post_message(self.ValueSet(row.path, "false" if row.value else "true"))
        elif row.setting.choices and not row.setting.types[0].endswith("[]"):
            usual = row.setting.default
            self._pick(row, [Choice(name, help="default" if name == usual else "") for name in row.setting.choices])
        elif row.path in self.offers:
            self._pick(row, self.offers[row.path])
        else:
            self._type(row)

    def _pick(self, row: Row, choices: Sequence[Choice]) -> None:
        def take(picked: tuple[str, ...] | None) -> None:
            if picked and picked[0] != row.value:
                self.post_message(self.ValueSet(row.path, toml_of(picked[0])))

        self.app.push_screen(PickList(f"{row.path}: {row.setting.help}", choices, [str(row.value)]), take)

    def _type(self, row: Row) -> None:
        """Open the value for typing, over its line."""
        listed = self.listed
        line = (listed.highlighted or 0) - listed.scroll_offset.y + listed.region.y - self.region.y
        left = 1 + MARK_WIDTH + NAME_WIDTH
        self.query_one(ValueInput).open(row, Offset(left, line), max(12, self.size.width - left - 1))

    @on(ValueInput.Judged)
    def _tell(self, event: ValueInput.Judged) -> None:
        event.stop()
        self.query_one("#about", Static).update(form_lines.about(event.row, event.problem))

    @on(ValueInput.Closed)
    def _take(self, event: ValueInput.Closed) -> None:
        event.stop()
        if event.by_key:
            self.listed.focus()
        if event.raw is not None:
            self.post_message(self.ValueSet(event.row.path, event.raw))
        self._explain()

    def action_reset(self) -> None:
        """Take the key, or the penalty, out of the text."""
        path = self.current.removeprefix("table:")
        if path and self.current != ADD:
            self.post_message(self.Removed(path))

    def action_add_penalty(self) -> None:
        def take(picked: tuple[str, ...] | None) -> None:
            if picked:
                self.post_message(self.PenaltyAdded(picked[0]))

        if self.penalties:
            self.app.push_screen(PickList("add a penalty", [Choice(name) for name in self.penalties]), take)

    # -- filter ------------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        field = self.query_one(FilterInput)
        field.display = True
        field.focus()

    @on(Input.Changed, "FilterInput")
    def _narrow(self, event: Input.Changed) -> None:
        event.stop()
        self._list()

    @on(FilterInput.Left)
    def _narrowed(self, event: FilterInput.Left) -> None:
        """Back to the list; the filter stays in view while it filters."""
        event.stop()
        self.listed.focus()
        field = self.query_one(FilterInput)
        field.display = bool(field.value)

    def action_only_here(self) -> None:
        self.only_here = not self.only_here
        self._list()
