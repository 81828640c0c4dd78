"""The footer: whole items only, help always there, and a click is as good as the key."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Input
from tui.driving import calm, run

from lreg_tui.widgets.keys import KeyFooter

ZOOM = Binding.Group("zoom", compact=True)


class Panel(Widget, can_focus=True):
    BINDINGS = [Binding(key, "nothing", f"panel word {key}") for key in "uvw"]

    def action_nothing(self) -> None:
        pass


class Host(App):
    BINDINGS = [
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("f1", "help", "help", show=False, priority=True),
        Binding("a", "did('a')", "first"),
        Binding("plus", "did('+')", "in", key_display="+", group=ZOOM),
        Binding("minus", "did('-')", "out", key_display="-", group=ZOOM),
        Binding("b", "off", "off now"),
        Binding("c", "did('c')", "hidden", show=False),
        *(Binding(key, f"did('{key}')", f"a longer word {key}") for key in "defghij"),
    ]

    def __init__(self):
        super().__init__()
        self.done = []

    def compose(self) -> ComposeResult:
        yield Input()
        yield Panel()
        yield KeyFooter()

    def check_action(self, action, parameters):
        return None if action == "off" else True

    def action_did(self, what):
        self.done.append(what)

    def action_help(self):
        self.done.append("help")


class WithWayOut(Host):
    BINDINGS = [Binding("q", "did('q')", "quit"), Binding("escape", "did('esc')", "back")]


def drive(steps, size=(80, 24), host=Host):
    async def go():
        app = host()
        async with app.run_test(size=size) as pilot:
            app.set_focus(None)
            await calm(pilot)
            await steps(pilot, app, lambda: f" {app.query_one(KeyFooter).render_line(0).text} ")

    run(go())


def test_only_whole_items_are_shown_and_help_at_the_end():
    async def steps(pilot, app, line):
        assert line().startswith(" a first  +- zoom  b off now  d a longer word d  ") and "hidden" not in line()
        for width in range(20, 130):
            await pilot.resize_terminal(width, 24)
            words = line()
            assert words.endswith(" ? help ") and len(words) == app.query_one(KeyFooter).outer_size.width
            assert words[: -len(" ? help ")].rstrip().split("  ")[-1].strip() in (
                "",
                "a first",
                "+- zoom",
                "b off now",
                *(f"{key} a longer word {key}" for key in "defghij"),
            )

    drive(steps)


def test_keys_of_what_has_the_focus_come_first_and_do_not_push_help_out():
    async def steps(pilot, app, line):
        app.query_one(Panel).focus()
        await calm(pilot)
        assert line().startswith(" u panel word u") and line().endswith("? help ")
        app.query_one(Input).focus()
        await calm(pilot)
        assert line().endswith("F1 help ")  # a ? would be typed
        await pilot.press("question_mark", "f1")
        assert app.done == ["help"] and app.query_one(Input).value == "?"

    drive(steps)


def test_the_way_out_stands_before_help_however_narrow_it_is():
    async def steps(pilot, app, line):
        for width in (30, 60, 120):
            await pilot.resize_terminal(width, 24)
            assert line().endswith("  esc back  q quit  ? help ")
        app.query_one(Input).focus()
        await calm(pilot)
        assert line().endswith("  esc back  F1 help ")  # a q would be typed

    drive(steps, host=WithWayOut)


def test_a_click_on_an_item_is_as_good_as_its_key():
    async def steps(pilot, app, line):
        for text in ("first", "-", "? help"):
            await pilot.click(KeyFooter, offset=(line().index(text), 0))
            await calm(pilot)
        assert app.done == ["a", "-", "help"]

    drive(steps)


def test_nothing_is_drawn_while_the_keys_stay_the_same():
    async def steps(pilot, app, line):
        footer, drawn = app.query_one(KeyFooter), []
        footer.refresh = lambda *regions, **options: drawn.append(regions) or footer
        app.screen.refresh_bindings()
        await calm(pilot)
        assert drawn == []
        app.query_one(Panel).focus()
        await calm(pilot)
        assert len(drawn) == 1

    drive(steps)
