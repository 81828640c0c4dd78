"""PickingScreen: pick one of many files by name; typing narrows the list down, and what is highlighted is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from lreg_tui.presets.form_lines import MUTED
from lreg_tui.presets.offers import Offer
from lreg_tui.runs.feed import RunRow
from lreg_tui.text.present import clean
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.line_input import ListFilter
from lreg_tui.widgets.threads import off_the_loop


class PickingScreen(Ending, ModalScreen[Offer | None]):
    """Ends with what was picked, or None. `rows`: the runs that are known; `folder`: whose files are offered, too."""

    HEADING: ClassVar[str]
    NAME_WIDTH: ClassVar[int]
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]
    DEFAULT_CSS = """
    PickingScreen {
        align: center middle; background: $background 60%;
        & > Vertical { width: 90%; height: 90%; margin-bottom: 1; background: $panel; padding: 1 2; }
        #heading { height: 1; text-style: bold; }
        Input { border: none; height: 1; padding: 0 1; margin: 1 0; background: $surface; }
        #offers { height: 1fr; }
        OptionList {
            height: 1fr; border: none; padding: 0; background: $panel; scrollbar-size-vertical: 1;
            text-wrap: nowrap; text-overflow: ellipsis;
            & > .option-list--option-highlighted { background: $primary 30%; color: $foreground; text-style: none; }
            & > .option-list--option-disabled { color: $foreground; }
        }
    }
    """

    def __init__(self, rows: Sequence[RunRow] = (), folder: Path | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.folder = folder or Path()
        self.offers: list[Offer] = []
        self.shown: list[Offer] = []
        self._words = ""  # that these fit

    def find(self) -> Iterable[Offer]:
        """What is offered. Reads files: not called on the loop."""
        raise NotImplementedError

    def preview(self) -> Widget:
        """What stands beside the list."""
        raise NotImplementedError

    def show(self, offer: Offer) -> None:
        """Called when another offer is highlighted: fill the preview."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.HEADING, id="heading", markup=False)
            yield ListFilter()
            with Container(id="offers"):
                yield OptionList(markup=False, compact=True)
                yield self.preview()
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.query_one(ListFilter).focus()
        self._load()

    @work(group="offers", exclusive=True)
    async def _load(self) -> None:
        self.offers = await off_the_loop(lambda: list(self.find()), "offers")
        self._list()

    @on(Input.Changed)
    def _narrow(self) -> None:
        if self.query_one(ListFilter).value != self._words:
            self._list()

    def _list(self) -> None:
        self._words = self.query_one(ListFilter).value
        words = self._words.lower().split()
        texts = [(offer, f"{offer.group} {offer.name} {offer.about}".lower()) for offer in self.offers]
        self.shown = [offer for offer, text in texts if all(word in text for word in words)]
        options: list[Option] = []
        for index, offer in enumerate(self.shown):
            if not index or self.shown[index - 1].group != offer.group:
                options.append(Option(Content.styled(offer.group, "$primary bold"), disabled=True))
            name = clean(offer.name, self.NAME_WIDTH - 2).ljust(self.NAME_WIDTH)
            options.append(Option(Content.assemble(f"  {name}", (clean(offer.about, 160), MUTED)), id=str(index)))
        listed = self.query_one(OptionList)
        listed.set_options(options)
        listed.highlighted = 1 if options else None

    @property
    def current(self) -> Offer | None:
        option = self.query_one(OptionList).highlighted_option
        return self.shown[int(option.id)] if option is not None and option.id is not None else None

    @on(OptionList.OptionHighlighted)
    def _show_current(self) -> None:
        if (offer := self.current) is not None:
            self.show(offer)

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
            self.dismiss(self.current)
