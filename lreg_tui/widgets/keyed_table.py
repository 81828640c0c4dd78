"""KeyedTable: a DataTable of rows by key. What differs is drawn again; the cursor stays on its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.geometry import Region
from textual.widgets import DataTable

from lreg_tui.widgets.keys import bind


class KeyedTable(DataTable[Text]):
    """Text from strangers is for the caller to clean."""

    HELP_TITLE = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("first", "scroll_top", show=False),
        bind("last", "scroll_bottom", show=False),
    ]
    _updates_a_row = False
    DEFAULT_CSS = """
    KeyedTable {
        background: $background; background-tint: transparent; overflow-x: hidden; scrollbar-size: 1 1;
        &:focus { background-tint: transparent; }
        & > .datatable--header { background: $background; color: $text-muted; text-style: none; }
        & > .datatable--cursor, &:focus > .datatable--cursor { background: $primary 30%; text-style: none; }
    }
    """

    def __init__(self, **options: Any) -> None:
        usual = {"cursor_type": "row", "cell_padding": 1, "cursor_foreground_priority": "renderable"}
        super().__init__(**{**usual, **options})
        self._headings: list[Text] = []
        self._awaited = ""  # the row to put the cursor on when it appears

    def lay_out(self, columns: Sequence[Text]) -> bool:
        """Have these columns; without rows where they are others than before. Whether they are."""
        if self._headings == list(columns):
            return False
        self._awaited = self._awaited or self.key
        self._headings = list(columns)
        self.clear(columns=True)
        for heading in columns:
            self.add_column(heading)
        return True

    @property
    def key(self) -> str:
        """Of the row under the cursor; "" where there are no rows."""
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value or "" if self.row_count else ""

    def select(self, key: str) -> None:
        """Put the cursor on a row, now or when it appears."""
        self._awaited = "" if key in self.rows else key
        if key in self.rows:
            self.move_cursor(row=self.get_row_index(key))

    def show(self, rows: Mapping[str, Sequence[Text]]) -> None:
        """Have these rows, by key, in this order."""
        if list(rows) != [key.value for key in self.rows]:
            key, seen_column = self._awaited or self.key, self.cursor_column
            self.clear()
            for name, cells in rows.items():
                self.add_row(*cells, key=name)
            self._awaited = key if key not in rows else ""
            if key in rows:
                self.move_cursor(row=self.get_row_index(key), column=seen_column)
            return
        for index, (name, cells) in enumerate(rows.items()):
            triples = zip(self.ordered_columns, self.get_row(name), cells, strict=True)
            changed = [(column, new) for column, old, new in triples if (old, old.style) != (new, new.style)]
            self._updates_a_row = True
            for column, cell in changed:
                self.update_cell(name, column.key, cell, update_width=True)
            self._updates_a_row = False
            if changed:
                self.refresh_row(index)

    def refresh(self, *regions: Region, **options: Any) -> KeyedTable:
        """A changed cell is no reason to send the whole table once more."""
        return self if self._updates_a_row else super().refresh(*regions, **options)
