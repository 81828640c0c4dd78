"""PickOfferScreen: pick a preset or a study by name; what the highlighted one is like stands below the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual import on, work
from textual.app import App
from textual.widget import Widget
from textual.widgets import OptionList

from lreg_tui.presets.offers import SHIPPED, Offer
from lreg_tui.presets.preset_file import on_disk
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop
from lreg_tui.widgets.toml_area import TomlArea


class PickOfferScreen(PickList):
    """A PickList of references."""

    HEADING: ClassVar[str]
    DEFAULT_CSS = """
    PickOfferScreen > .dialog { height: 90%; }
    PickOfferScreen OptionList { height: 1fr; max-height: 100%; }
    """

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.offers = {offer.reference: offer for offer in offers}
        groups = [f"({offer.group}) " * (offer.group != SHIPPED) for offer in offers]
        choices = [Choice(o.reference, o.name, f"{group}{o.about}") for o, group in zip(offers, groups, strict=True)]
        super().__init__(self.HEADING, choices)

    @classmethod
    async def ask(cls, app: App[None], find: Callable[[], Iterable[Offer]]) -> Offer | None:
        """Let the user pick. `find` reads files."""
        screen = cls(await off_the_loop(lambda: list(find()), "offers"))
        picked = await app.push_screen_wait(screen)
        return screen.offers[picked[0]] if picked else None

    def on_mount(self) -> None:
        self.query_one(".dialog").mount(self.make_preview())

    @property
    def current(self) -> Offer | None:
        index = self.query_one(OptionList).highlighted
        return self.offers[self.shown[index].value] if index is not None and index < len(self.shown) else None

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        if self.current is not None:
            self.preview(self.current)

    def make_preview(self) -> Widget:
        """What stands below the list."""
        raise NotImplementedError

    def preview(self, offer: Offer) -> object:
        """Show what an offer is like."""
        raise NotImplementedError


class PickPresetScreen(PickOfferScreen):
    """Where there is room, the text of the highlighted preset stands below the list."""

    HEADING = "New run: which preset?"
    DEFAULT_CSS = """
    PickPresetScreen TomlArea { height: 2fr; margin-top: 1; background: $surface; }
    """

    def make_preview(self) -> TomlArea:
        area = TomlArea(read_only=True)
        area.can_focus, area.show_cursor, area.display = False, False, self.size.height >= 30
        return area

    @work(group="preview", exclusive=True)
    async def preview(self, offer: Offer) -> None:
        text = await off_the_loop(lambda: on_disk(offer.path), "preset")
        self.query_one(TomlArea).load_text(text if text is not None else "# cannot be read")
