"""PageTabs: the names of a screen's pages in one line, each with the number that is its key, and a place to click."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from textual.binding import Binding
from textual.content import Content
from textual.widgets import Tab, Tabs

from lreg_tui.widgets.keys import bind

PREFIX = "to-"  # of the ids of tabs: the page may have the name itself


class PageTabs(Tabs, can_focus=False):
    """Scrolls to the page in sight where not all fit. Its screen has `action_show_tab`."""

    DEFAULT_CSS = """
    PageTabs {
        height: 1; padding: 0 1;
        Tab { padding: 0 2 0 0; }
        Tab.-active { text-style: bold; color: $primary; }
        Underline { display: none; }
    }
    """

    def __init__(self, pages: Sequence[str]) -> None:
        self.tabs = {page: Tab(_label(number, page), id=f"{PREFIX}{page}") for number, page in enumerate(pages, 1)}
        super().__init__(*self.tabs.values())
        self.page = pages[0]  # in sight

    def show_page(self, page: str, counts: Mapping[str, str] | None = None) -> bool:
        """Which page is in sight; `counts`: what stands beside the names of some. True if that is new."""
        before = self.text, self.active
        for number, (name, tab) in enumerate(self.tabs.items(), 1):
            label = _label(number, name, (counts or {}).get(name, ""))
            if tab.label.plain != label.plain:
                tab.label = label
        self.page, self.active = page, f"{PREFIX}{page}"
        return (self.text, self.active) != before

    @property
    def text(self) -> str:
        return "  ".join(tab.label_text for tab in self.tabs.values())

    async def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """A click on one that is not in sight, unless another was asked for meanwhile."""
        event.stop()
        page = self.active.removeprefix(PREFIX)
        if event.tab.id == self.active and page != self.page:
            await self.screen.run_action(f"show_tab('{page}')")


def _label(number: int, page: str, count: str = "") -> Content:
    return Content.assemble((f"{number} ", "dim"), page, (f" {count}" if count else "", "dim"))


def page_keys(pages: Sequence[str]) -> Iterator[Binding]:
    """Keys of a screen with `action_show_tab`."""
    for number, page in enumerate(pages, 1):
        yield bind("show", f"show_tab('{page}')", page, f"show the {page}", keys=str(number), show=False)
