"""What is the same everywhere in the console."""

from __future__ import annotations

import os
import re
import signal
import termios

import psutil
import pytest
from hang_ups import unread
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from tui import driving
from tui.driving import Quick
from tui.terminal import COLOUR, Terminal

from engine.runs.store import RunStore
from lreg_tui.app.console import SMALLEST, LregApp, TooSmallScreen
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.system import session
from lreg_tui.widgets import themes
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.themes import NoColour

ALTERNATE_SCREEN = b"\x1b[?1049h"


def test_a_terminal_that_is_too_small_says_so_until_it_is_not(tmp_path):
    async def scene() -> None:
        app = LregApp(RunStore(tmp_path / "runs"), session_path=tmp_path / "console.json")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(app.screen, DashboardScreen)
            for size, is_small in (((59, 24), True), ((40, 10), True), (SMALLEST, False), ((80, 19), True)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert isinstance(app.screen, TooSmallScreen) is is_small, size
            assert "60 x 20" in app.screen.wanted and len(app.screen_stack) == 2

    driving.run(scene())


def test_what_was_typed_is_still_there_when_the_terminal_grows_again(tmp_path):
    store = driving.make_store(tmp_path / "runs")

    async def scene() -> None:
        app = driving.make_app(store, tmp_path)
        async with app.run_test(size=(80, 24)):
            pilot = Quick(app)
            await driving.until(pilot, lambda: len(app.feed.rows) == 3)
            await pilot.press("slash", *"state:")
            await pilot.resize_terminal(30, 5)
            await driving.calm(pilot)
            assert "60 x 20" in "".join(strip.text for strip in app.screen._compositor.render_strips())
            await pilot.press("x", "escape", "a", "D")
            assert isinstance(app.screen, TooSmallScreen)
            await pilot.resize_terminal(80, 24)
            await driving.calm(pilot)
            assert isinstance(app.screen, PromptScreen) and app.screen.query_one("Input").value == "state:"
            await pilot.press("escape")

    driving.run(scene())


@pytest.mark.parametrize(("theme", "expected"), [("lreg-light", "lreg-light"), ("no such", themes.DEFAULT)])
def test_the_theme_is_that_of_the_last_time(tmp_path, theme, expected):
    session.save(session.Session(theme), tmp_path / "console.json")

    async def scene() -> None:
        app = driving.make_app(RunStore(tmp_path / "runs"), tmp_path)
        async with app.run_test():
            await driving.settle(Quick(app))
            wanted = Color.parse(app.available_themes[expected].background)
            assert app.theme == expected and app.screen.styles.background == wanted
            app.theme = "lreg-colour-blind"
            await driving.settle(Quick(app))
            assert app.screen.styles.background == Color(0, 0, 0)
        assert session.load(tmp_path / "console.json").theme == "lreg-colour-blind"

    driving.run(scene())


# -- without colours -------------------------------------------------------------------------------------------------


def plot_of(text: str) -> list[str]:
    return [line[8:] for line in text.splitlines() if "┈" in line or "⠤" in line]


def test_with_no_color_no_colour_is_sent_and_curves_are_told_apart(tmp_path):
    driving.make_store(tmp_path / "runs")
    with Terminal(tmp_path / "runs", tmp_path, environment={"NO_COLOR": "1"}) as terminal:
        terminal.shows("gamma", "beta", "alpha")
        terminal.press(" ", "\x1b[B", " ")
        terminal.shows("● gamma", "▲ beta", "step 0")
        terminal.until(lambda: all(any(mark in line for line in plot_of(terminal.text)) for mark in "●▲"))
        terminal.press("?")
        terminal.shows("show some of the runs only")
        terminal.press("?", "a")
        terminal.shows("which preset?", "quickstart")
        terminal.press("\r")
        terminal.shows("valid")
        assert COLOUR.findall(terminal.sent) == []
        assert b"\x1b[1;7m" in terminal.sent  # where the cursor is


def test_colours_are_sent_where_nobody_forbids_it(tmp_path):
    driving.make_store(tmp_path / "runs")
    for environment in ({}, {"TEXTUAL_COLOR_SYSTEM": "standard"}):
        with Terminal(tmp_path / "runs", tmp_path, environment=environment) as terminal:
            terminal.shows("gamma", "beta", "alpha", "crashed")
            assert COLOUR.findall(terminal.sent)
            assert (b"38;2;" in terminal.sent) is not bool(environment)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (Style(color="#d8dee6", bgcolor="#101418"), Style()),
        (Style(color="#d8dee6", bgcolor="#161b21", bold=True), Style(bold=True)),
        (Style(color="#d8dee6", bgcolor="#254456"), Style(reverse=True)),  # a cursor
        (Style(color="#254456", reverse=True), Style(reverse=True)),  # a scroll bar
        (Style(color="#3a4048", bgcolor="#101418"), Style(dim=True)),
        (Style(color="#d55e00", bgcolor="#101418", underline=True), Style(underline=True)),
        (Style(meta={"@click": "app.quit"}), Style(meta={"@click": "app.quit"})),
    ],
)
def test_what_colours_said_is_said_by_other_means(style, expected):
    (segment,) = NoColour().apply([Segment("text", style)], Color.parse("#101418"))
    assert segment.style == expected and segment.text == "text"


# -- terminals -------------------------------------------------------------------------------------------------------


def test_a_terminal_that_cannot_draw_is_told_so(tmp_path):
    with Terminal(tmp_path / "runs", tmp_path, environment={"TERM": "dumb"}) as terminal:
        terminal.shows("error: lreg-tui needs a terminal that it can draw on")
        terminal.until(terminal.has_ended)


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_without_a_terminal_it_says_so(tmp_path, descriptor):
    code = f"import os, sys; os.dup2(os.open('elsewhere', os.O_RDWR | os.O_CREAT), {descriptor})\n"
    code += "from lreg_tui import app; sys.exit(app.main())"
    with Terminal(tmp_path / "runs", tmp_path, program=("-c", code)) as terminal:
        terminal.shows("error: lreg-tui")  # also with 2>file, on which Textual would draw
        terminal.until(terminal.has_ended)
        assert b"\x1b" not in terminal.sent


def test_a_plug_in_that_is_not_there_is_one_line(tmp_path):
    with Terminal(tmp_path / "runs", tmp_path, "--plugin", "nowhere.py", columns=300) as terminal:
        terminal.shows(f"error: --plugin: found {tmp_path}/nowhere.py, no such file")
        terminal.until(terminal.has_ended)
        assert b"\x1b" not in terminal.sent


@pytest.mark.parametrize(("number", "is_early"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_told_to_end_it_leaves_the_terminal_as_it_was(tmp_path, number, is_early):
    with Terminal(tmp_path / "runs", tmp_path) as terminal:
        before = termios.tcgetattr(terminal.main_end)
        terminal.until(lambda: ALTERNATE_SCREEN in terminal.sent)
        if not is_early:
            terminal.shows("No runs yet")
        os.kill(terminal.pid, number)
        terminal.until(lambda: b"\x1b[?1006l" in terminal.sent and terminal.has_ended())
        assert modes(terminal) == set() and termios.tcgetattr(terminal.main_end) == before
        assert b"Traceback" not in terminal.sent


def test_told_to_end_it_ends_also_where_the_terminal_takes_no_more(tmp_path):
    with Terminal(tmp_path / "runs", tmp_path) as terminal:
        unread(terminal, 0.3)
        os.kill(terminal.pid, signal.SIGTERM)
        assert psutil.Process(terminal.pid).wait(10) == 128 + signal.SIGTERM
        terminal.pid = 0


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_stopped_and_continued_it_goes_on_and_leaves_the_terminal_as_it_was(tmp_path, number):
    with Terminal(tmp_path / "runs", tmp_path) as terminal:
        before = termios.tcgetattr(terminal.main_end)
        terminal.shows("No runs yet")
        process = psutil.Process(terminal.pid)
        for _ in range(3):
            os.kill(terminal.pid, number)
            terminal.until(lambda: process.status() == psutil.STATUS_STOPPED)
            if number == signal.SIGTSTP:
                terminal.until(lambda: modes(terminal) == set())
            already = terminal.sent.count(ALTERNATE_SCREEN)
            os.kill(terminal.pid, signal.SIGCONT)
            terminal.until(lambda already=already: terminal.sent.count(ALTERNATE_SCREEN) > already)
            terminal.shows("No runs yet")
        terminal.press("q")
        terminal.until(terminal.has_ended)
        assert modes(terminal) == set() and termios.tcgetattr(terminal.main_end) == before


def modes(terminal: Terminal) -> set[bytes]:
    """The private modes that are set, without those that terminals begin with."""
    last = dict(re.findall(rb"\x1b\[\?(\d+)([hl])", terminal.sent))
    return {mode for mode, how in last.items() if how == b"h"} - {b"7", b"25"}


def test_a_real_terminal_can_shrink_and_grow(tmp_path):
    driving.make_store(tmp_path / "runs")
    with Terminal(tmp_path / "runs", tmp_path) as terminal:
        terminal.shows("gamma", "meta-loss")
        terminal.resize(50, 15)
        terminal.shows("lreg needs 60 x 20; runs go on meanwhile")
        terminal.resize(80, 24)
        terminal.shows("gamma", "crashed", "meta-loss", "filter")
        terminal.resize(20, 5)
        terminal.shows("needs 60 x 20")
        terminal.press("q")
        terminal.until(terminal.has_ended)


@pytest.mark.parametrize("theme", [theme.name for theme in themes.THEMES])
def test_a_colour_that_text_names_is_the_themes(tmp_path, theme):
    async def scene() -> None:
        app = driving.make_app(RunStore(tmp_path / "runs"), tmp_path)
        async with app.run_test() as pilot:
            app.theme = theme
            await driving.settle(pilot)
            colours = [Color.parse(app.theme_variables[name]).rgb for name in ("success", "error", "warning")]
            segments = [Segment("x", Style.parse(name)) for name in ("green", "bold red", "yellow")]
            for line_filter in app.get_line_filters():
                segments = line_filter.apply(segments, Color(0, 0, 0))
            assert [tuple(segment.style.color.triplet) for segment in segments] == colours

    driving.run(scene())


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252:replace"])
def test_a_terminal_that_is_not_of_utf8_is_told_so_and_not_touched(tmp_path, encoding):
    with Terminal(tmp_path, tmp_path, environment={"PYTHONIOENCODING": encoding}) as terminal:
        terminal.until(terminal.has_ended)
        assert terminal.sent.count(b"\n") == 1 and b"\x1b" not in terminal.sent
        assert terminal.sent.startswith(b"error: ") and b"UTF-8" in terminal.sent
