"""PickStudyScreen: which study to start, what it asks for, and how long that may take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import LregError
from lreg_tui import study_start
from lreg_tui.feed import RunRow
from lreg_tui.present import clean, clean_block
from lreg_tui.study_start import Offer, Size
from lreg_tui.threads import off_the_loop
from lreg_tui.widgets.form_lines import MUTED
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.line_input import ListFilter

NAME_WIDTH = 24


class PickStudyScreen(ModalScreen[Offer | None]):
    """Ends with what was picked, or None. Typing narrows the list down; below it, what the highlighted one asks for."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]
    DEFAULT_CSS = """
    PickStudyScreen {
        align: center middle; background: $background 60%;
        & > Vertical { width: 90%; max-width: 130; height: 90%; margin-bottom: 1; background: $panel; padding: 1 2; }
        #heading { height: 1; text-style: bold; }
        Input { border: none; height: 1; padding: 0 1; margin: 1 0; background: $surface; }
        OptionList {
            height: 1fr; border: none; padding: 0; background: $panel; scrollbar-size-vertical: 1;
            text-wrap: nowrap; text-overflow: ellipsis;
            & > .option-list--option-highlighted { background: $primary 30%; color: $foreground; text-style: none; }
            & > .option-list--option-disabled { color: $foreground; }
        }
        #size { height: 6; margin-top: 1; padding: 0 1; background: $surface; }
    }
    """

    def __init__(self, rows: Sequence[RunRow] = (), folder: Path | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.folder = folder or Path()
        self.offers: list[Offer] = []
        self.shown: list[Offer] = []
        self.sizes: dict[str, Text] = {}  # by reference
        self._words = ""  # that these fit

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static("New study: which one?", id="heading", markup=False)
            yield ListFilter()
            yield OptionList(markup=False, compact=True)
            yield Static(id="size", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.query_one(ListFilter).focus()
        self._load()

    @work(group="offers", exclusive=True)
    async def _load(self) -> None:
        self.offers = await off_the_loop(lambda: list(study_start.offers(self.folder)), "studies")
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
            name = clean(offer.name, NAME_WIDTH - 2).ljust(NAME_WIDTH)
            options.append(Option(Content.assemble(f"  {name}", (clean(offer.about, 160), MUTED)), id=str(index)))
        listed = self.query_one(OptionList)
        listed.set_options(options)
        listed.highlighted = 1 if options else None

    @property
    def current(self) -> Offer | None:
        option = self.query_one(OptionList).highlighted_option
        return self.shown[int(option.id)] if option is not None and option.id is not None else None

    @on(OptionList.OptionHighlighted)
    def _weigh_current(self) -> None:
        if (offer := self.current) is not None:
            self.query_one("#size", Static).update(self.sizes.get(offer.reference, Text("counting …", "dim")))
            self._weigh(offer)

    @work(group="size", exclusive=True)
    async def _weigh(self, offer: Offer) -> None:
        if offer.reference not in self.sizes:
            self.sizes[offer.reference] = await off_the_loop(lambda: weighed(offer.reference, self.rows), "study")
        if self.current == offer:
            self.query_one("#size", Static).update(self.sizes[offer.reference])

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

    def action_leave(self) -> None:
        self.dismiss(None)


def weighed(reference: str, rows: Sequence[RunRow]) -> Text:
    """What a study asks for, in words; or what is wrong with it."""
    try:
        return words_of(study_start.size_of(reference, rows))
    except LregError as error:
        return Text(clean_block(str(error)), "bold red")


def words_of(size: Size) -> Text:
    plan = size.plan
    arms = ", ".join(arm.name for arm in plan.arms)
    text = Text.assemble((_count(size.runs, "run"), "bold"), f", {_count(len(plan.seeds), 'meta-seed')}")
    text.append(f", then {_count(size.transfers, 'transfer')}" if size.transfers else "")
    if plan.search is not None:
        text.append(f"; a search of {plan.search.trials} trials for each arm with axes")
    text.append(f"\narms: {clean(arms, 400)}", "dim")
    return text.append(f"\n{clean(size.estimate, 300)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
