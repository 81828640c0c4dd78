"""Help: what keys do where the focus is, nearest first, and that all of it can be read on a small terminal."""

from __future__ import annotations

from typing import Any

from textual.containers import VerticalScroll
from textual.widgets import Static
from tui.driving import on_dashboard, settle, until

from lreg_tui.app.help import HelpScreen, groups
from lreg_tui.charts.chart import Chart
from lreg_tui.widgets.dialog import ConfirmScreen


async def open_help(pilot: Any) -> VerticalScroll:
    await pilot.press("question_mark")
    await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
    await settle(pilot)
    return pilot.app.screen.query_one(VerticalScroll)


def lines_of(screen: Any) -> list[str]:
    """All that the help says, also beyond the view."""
    page = screen.query_one(Static)
    return [strip.text.rstrip() for strip in page.render_lines(page.size.region)]


def in_view(pilot: Any) -> str:
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


def test_the_last_line_can_be_reached(tmp_path):
    async def doing(pilot, app):
        page = await open_help(pilot)
        lines = lines_of(app.screen)
        assert len(lines) > 24 and lines[0].strip() in in_view(pilot) and lines[-1] not in in_view(pilot)
        for key in ("end", "G"):
            await pilot.press(key)
            await settle(pilot)
            assert lines[-1].strip() in in_view(pilot)
            assert "esc close" in in_view(pilot).splitlines()[-1]
            await pilot.press("home")
            await settle(pilot)
            assert page.scroll_offset.y == 0

    on_dashboard(tmp_path, doing)


def test_keys_scroll_by_a_line_and_by_a_page(tmp_path):
    async def doing(pilot, app):
        page = await open_help(pilot)
        places = []
        for key in ("j", "j", "k", "pagedown", "pageup", "pagedown", "g"):
            await pilot.press(key)
            await settle(pilot)
            places.append(page.scroll_offset.y)
        assert places[:3] == [1, 2, 1] and places[3] > 10 and places[4] == places[3] - (places[5] - places[4])
        assert places[-1] == 0
        await pilot.press("escape")
        await settle(pilot)
        assert not isinstance(app.screen, HelpScreen)

    on_dashboard(tmp_path, doing)


def test_what_has_the_focus_comes_first_and_hides_what_its_keys_meant(tmp_path):
    async def doing(pilot, app):
        titles = [title for title, _ in groups(app.screen)]
        assert titles[:2] == ["Table", "Runs"] and titles[-1] == "Everywhere"
        assert "finish the truncation, write a checkpoint, and end" in dict(groups(app.screen))["Runs"]
        await pilot.press("z")
        await settle(pilot)
        assert isinstance(app.screen.focused, Chart)
        found = list(groups(app.screen))
        chart, runs = found[0][1], dict(found)["Runs"]
        assert any("l" in keys for keys in chart.values()), "a logarithmic axis"
        assert any("s" in keys for keys in runs.values()), "s stops the run from there as well"
        assert any("/" in keys for keys in runs.values()) and found[1][0] == "Runs"

    on_dashboard(tmp_path, doing)


def test_keys_that_textual_brings_are_left_out_but_for_the_palette(tmp_path):
    async def doing(pilot, app):
        app.open_editor("quickstart")
        await until(pilot, lambda: getattr(app.screen, "checked", None) is not None)
        for key in ("ctrl+t", ""):
            await pilot.press(*filter(None, [key]))
            await settle(pilot)
            meanings = {meaning.lower() for _, keys in groups(app.screen) for meaning in keys}
            for foreign in ("focus next", "copy selected text", "cursor left", "cut", "delete left", "undo", "paste"):
                assert foreign not in meanings, foreign
            assert "open the command palette" in meanings

    on_dashboard(tmp_path, doing)


def test_a_question_has_its_keys_in_the_footer_and_a_frame(tmp_path):
    async def doing(pilot, app):
        app.push_screen(ConfirmScreen("Delete alpha?"))
        await settle(pilot)
        lines = in_view(pilot).splitlines()
        assert "y yes" in lines[-1] and "esc cancel" in lines[-1] and "filter" not in lines[-1], lines[-1]
        assert any("╭" in line for line in lines) and any("╰" in line for line in lines)

    on_dashboard(tmp_path, doing)


def test_what_is_long_goes_on_below_itself(tmp_path):
    async def doing(pilot, app):
        await open_help(pilot)
        lines = lines_of(app.screen)
        assert max(map(len, lines)) <= 60 - 5
        begun = next(number for number, line in enumerate(lines) if "state:running,paused" in line)
        column = lines[begun].index("one of several")
        assert lines[begun + 1].strip() and lines[begun + 1][:column].isspace() and lines[begun + 1][column] != " "

    on_dashboard(tmp_path, doing, size=(60, 20))


def test_a_dialog_lists_no_keys_that_it_keeps_away(tmp_path):
    async def doing(pilot, app):
        app.push_screen(ConfirmScreen("Delete alpha?"))
        await settle(pilot)
        found = dict(groups(app.screen))
        keys = [key for shown in found["Everywhere"].values() for key in shown]
        assert "F1" in keys and not {"q", "a", "?"} & set(keys)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settle(pilot)
        assert "esc close" in in_view(pilot)

    on_dashboard(tmp_path, doing)
