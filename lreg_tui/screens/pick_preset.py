"""PickPresetScreen: which preset a new run begins with: a shipped one, a file of this folder, or a run's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tomli
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine import document as documents
from engine.document import shipped
from engine.files import read_limited
from lreg_tui.present import age, clean
from lreg_tui.preset_file import on_disk
from lreg_tui.threads import off_the_loop
from lreg_tui.widgets.form_lines import MUTED
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.line_input import ListFilter
from lreg_tui.widgets.pick_list import Choice
from lreg_tui.widgets.toml_area import TomlArea

if TYPE_CHECKING:
    from lreg_tui.feed import RunRow

MOST_RUNS = 100
NAME_WIDTH = 26


@dataclass(frozen=True)
class Offer:
    """A preset that can be picked. `reference` is what opens it; the rest may have been written by strangers."""

    group: str
    reference: str
    name: str
    about: str
    path: Path


class PickPresetScreen(ModalScreen[str | None]):
    """Ends with a shipped preset's name or a file's path, or None. Typing narrows the list down."""

    CSS_PATH = "pick_preset.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back"),
    ]

    def __init__(self, rows: Sequence[RunRow] = (), folder: Path | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.folder = folder or Path()
        self.offers: list[Offer] = []
        self.shown: list[Offer] = []
        self._words = ""  # that these fit

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static("New run: which preset?", id="heading", markup=False)
            yield ListFilter()
            with Horizontal():
                yield OptionList(markup=False, compact=True)
                yield TomlArea(read_only=True)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        area = self.query_one(TomlArea)
        area.can_focus, area.show_cursor = False, False
        self.query_one(ListFilter).focus()
        self._load()

    @work(group="offers", exclusive=True)
    async def _load(self) -> None:
        self.offers = await off_the_loop(lambda: list(offers(self.folder, self.rows)), "presets")
        self._list()

    def on_resize(self) -> None:
        self.query_one(TomlArea).display = self.size.width >= 110

    @on(Input.Changed)
    def _narrow(self) -> None:
        if self.query_one(ListFilter).value != self._words:
            self._list()

    def _list(self) -> None:
        self._words = self.query_one(ListFilter).value
        words = self._words.lower().split()
        fitting = [
            offer
            for offer in self.offers
            if all(word in f"{offer.group} {offer.name} {offer.about}".lower() for word in words)
        ]
        self.shown = fitting
        options: list[Option] = []
        for index, offer in enumerate(fitting):
            if not index or fitting[index - 1].group != offer.group:
                options.append(Option(Content.styled(offer.group, "$primary bold"), disabled=True))
            name = clean(offer.name, NAME_WIDTH - 2).ljust(NAME_WIDTH)
            line = Content.assemble(f"  {name}", (clean(offer.about, 120), MUTED))
            options.append(Option(line, id=str(index)))
        listed = self.query_one(OptionList)
        listed.set_options(options)
        listed.highlighted = 1 if options else None

    @property
    def current(self) -> Offer | None:
        option = self.query_one(OptionList).highlighted_option
        return self.shown[int(option.id)] if option is not None and option.id is not None else None

    @on(OptionList.OptionHighlighted)
    def _preview(self) -> None:
        if self.query_one(TomlArea).display and self.current is not None:
            self._read(self.current.path)

    @work(group="preview", exclusive=True)
    async def _read(self, path: Path) -> None:
        text = await off_the_loop(lambda: on_disk(path), "preset")
        self.query_one(TomlArea).load_text(text if text is not None else "# cannot be read")

    def action_move(self, by: int) -> None:
        self._narrow()  # keys may come before the news of what was typed
        listed = self.query_one(OptionList)
        for _ in range(abs(by)):
            listed.action_cursor_up() if by < 0 else listed.action_cursor_down()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not action.startswith("mark")

    @on(OptionList.OptionSelected)
    def action_accept(self) -> None:
        self._narrow()
        if self.current is not None:
            self.dismiss(self.current.reference)

    def action_leave(self) -> None:
        self.dismiss(None)


def offers(folder: Path, rows: Sequence[RunRow]) -> Iterable[Offer]:
    """Every preset that can be picked. Reads files: not for the loop."""
    for name, path in sorted(shipped().items(), key=lambda item: (item[0] != "quickstart", item[0])):
        yield Offer("shipped", name, name, description_of(path), path)
    for path in sorted(folder.glob("*.toml")):
        about = description_of(path)
        if path.name != "pyproject.toml":
            yield Offer("in this folder", str(path), path.name, about, path)
    dated = sorted(rows, key=lambda row: row.created or 0.0, reverse=True)
    for row in [row for row in dated if not row.is_transfer][:MOST_RUNS]:
        path = row.path / "preset.toml"
        yield Offer("of a run", str(path), row.name, f"{row.id}, {age(row.created)} ago", path)


def description_of(path: Path) -> str:
    """What a preset says about itself."""
    try:
        values = tomli.loads(read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "cannot be read"
    found = values.get("description", "")
    extends = values.get("extends")
    return str(found) or (f"extends {extends}" if extends else "")


def run_choices(rows: Sequence[RunRow]) -> list[Choice]:
    """The runs that a run can start from, newest first."""
    runs = [row for row in reversed(rows) if not row.is_transfer]
    return [Choice(row.id, row.name, f"{row.id}  {row.optimizer} {' '.join(row.penalties)}") for row in runs]
