"""The command palette: every action of the screen, in words, and that choosing one does what its key does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandInput, CommandList, CommandPalette
from textual.pilot import Pilot
from tui.driving import make_app, make_store, run, settle, until

from lreg_tui.app.console import LregApp
from lreg_tui.app.help import commands, groups
from lreg_tui.charts.chart import Chart
from lreg_tui.presets.preset_editor import PresetEditorScreen
from lreg_tui.widgets.dialog import PromptScreen

Doing = Callable[[Pilot[Any], LregApp], Awaitable[None]]
ALPHA, BETA = "alpha", "beta"


def on_dashboard(folder: Path, doing: Doing, size: tuple[int, int] = (120, 40)) -> None:
    """Do something on the dashboard of a store with a finished, a running and a crashed run."""

    async def scene() -> None:
        app = make_app(make_store(folder / "runs"), folder)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.screen.table.runs.lines)
            await doing(pilot, app)

    run(scene())


def titles(app: LregApp) -> list[str]:
    return [command.title for command in commands(app.screen)]


async def go_to(pilot: Pilot[Any], app: LregApp, name: str) -> None:
    """Put the cursor on a run, by its name."""
    table = app.screen.table
    table.move_to([row.name for row in table.runs.lines].index(name))
    await settle(pilot)


async def search(pilot: Pilot[Any], app: LregApp, words: str) -> list[str]:
    """Open the palette, type, and return the texts that it offers."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(app.screen, CommandPalette))
    palette = app.screen
    palette.query_one(CommandInput).value = words
    await settle(pilot)
    found = palette.query_one(CommandList)
    return [str(found.get_option_at_index(index).prompt) for index in range(found.option_count)]


async def choose(pilot: Pilot[Any], app: LregApp, words: str) -> None:
    assert await search(pilot, app, words)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(app.screen, CommandPalette))


DASHBOARD = (
    *("Filter", "Sort", "Reverse order", "Metric", "Full screen", "Panel", "Panel 1", "Panel 4", "Back"),
    *("Stop", "Pause", "Rename", "Tag", "Pin", "Copy id", "Transfer", "Compare"),
    *("Table: Mark", "Table: Mark all", "Table: Open", "Chart: Smooth", "Chart: X axis", "Chart: Log axis"),
)


def test_actions_of_screen_and_widgets_are_offered_as_far_as_they_can_be_done(tmp_path):
    async def doing(pilot, app):
        await go_to(pilot, app, BETA)
        found = titles(app)
        assert set(DASHBOARD) <= set(found)
        assert not {"Resume", "Delete"} & set(found)  # it is running
        assert len(found) == len(set(found))
        await go_to(pilot, app, ALPHA)
        assert "Delete" in titles(app) and not {"Stop", "Pause", "Resume"} & set(titles(app))

    on_dashboard(tmp_path, doing)


def test_what_a_command_does_is_said_in_a_sentence_and_beside_its_key(tmp_path):
    async def doing(pilot, app):
        await go_to(pilot, app, BETA)
        offered = await search(pilot, app, "stop")
        assert offered[0].split() == "Stop s Finish the truncation, write a checkpoint, and end".split()
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, CommandPalette))
        offered = await search(pilot, app, "clipboard")  # words of the sentence find it as well
        assert any(line.startswith("Copy id") for line in offered)

    on_dashboard(tmp_path, doing)


def test_what_can_be_done_everywhere_is_listed_before_anything_is_typed(tmp_path):
    async def doing(pilot, app):
        offered = "\n".join(await search(pilot, app, ""))
        for title in ("Theme", "New run", "Studies", "Messages", "Help", "Quit"):
            assert title in offered

    on_dashboard(tmp_path, doing)


def test_choosing_does_what_the_key_does(tmp_path):
    async def doing(pilot, app):
        await choose(pilot, app, "tag")
        await until(pilot, lambda: isinstance(app.screen, PromptScreen))
        await pilot.press(*"paper", "enter")
        await until(pilot, lambda: any(row.tags == ("paper",) for row in app.feed.rows))

    on_dashboard(tmp_path, doing)


def test_an_action_of_another_widget_goes_to_the_chosen_panel(tmp_path):
    async def doing(pilot, app):
        await pilot.press("2")
        chosen, other = app.screen.panels.all[1].chart, app.screen.panels.all[0].chart
        before = chosen.log_x, chosen.x_axis
        await choose(pilot, app, "chart: x axis")
        await until(pilot, lambda: (chosen.log_x, chosen.x_axis) != before)
        assert chosen.has_focus and isinstance(other, Chart) and not other.has_focus

    on_dashboard(tmp_path, doing)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_what_is_out_of_view_is_not_offered(tmp_path, size):
    async def doing(pilot, app):
        await pilot.press("1")
        assert ("Log: Last" in titles(app)) is (size != (80, 24))

    on_dashboard(tmp_path, doing, size)


def test_every_screen_says_what_its_keys_do(tmp_path):
    async def doing(pilot, app):
        ids = [row.id for row in app.feed.rows]
        openings = {
            "Edit": lambda: app.open_run(ids[0]),
            "Copy": lambda: app.open_compare(ids),
            "Start": lambda: app.open_transfer(ids[:1]),
            "Launch": lambda: app.open_editor("quickstart"),
        }
        for title, show in openings.items():
            show()
            await settle(pilot)
            own = [command for command in commands(app.screen) if command.node is app.screen]
            assert title in [command.title for command in own]
            assert [command.title for command in own if not command.sentence and " " not in command.title] == []
            await pilot.press("escape")
            await settle(pilot)

    on_dashboard(tmp_path, doing)


def test_keys_of_a_line_of_text_are_not_offered(tmp_path):
    async def doing(pilot, app):
        app.open_editor("quickstart")
        await until(pilot, lambda: isinstance(app.screen, PresetEditorScreen) and app.screen.checked)
        await pilot.press("ctrl+t")
        await settle(pilot)
        assert app.screen.area.has_focus
        assert not [title for title in titles(app) if "Cursor" in title or "word" in title.lower()]
        assert {"Save", "Launch", "Changes"} <= set(titles(app))

    on_dashboard(tmp_path, doing)


def test_help_lists_what_panes_do_and_not_how_a_line_is_edited(tmp_path):
    async def doing(pilot, app):
        app.open_transfer([app.feed.rows[0].id])
        await settle(pilot)
        listed = {title: keys for title, keys in groups(app.screen)}
        assert "s" in [key for keys in listed["Job pane"].values() for key in keys]
        assert "Input" not in listed and "type, choose, or turn over a value" in listed["Request"]

    on_dashboard(tmp_path, doing)
