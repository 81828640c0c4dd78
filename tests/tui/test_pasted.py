"""Pastes are text and never keys, whatever they hold and whether or not the terminal marks them."""

from __future__ import annotations

import time

import pytest
from textual import events
from textual.widgets import Input, TextArea
from tui.driving import make_app, make_store, run, settle, until
from tui.terminal import Terminal

from lreg_tui.app.pasted import BURST_S, PasteParser

START, END = "\x1b[200~", "\x1b[201~"
HOSTILE = "drop\x1bq\x1b[31mred\x1b[A\x1bOP\x07\x03\x9b1m\r\nD\ny"
CLEANED = "dropq[31mred[AOP1m\nD\ny"


def events_of(*chunks: str, takes_text: bool = False) -> list[tuple[str, str]]:
    parser, found = PasteParser(lambda: takes_text), []
    for chunk in chunks:
        for message in parser.feed(chunk):
            found.append((type(message).__name__, getattr(message, "text", "") or getattr(message, "key", "")))
    return found


@pytest.mark.parametrize("takes_text", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
def test_a_marked_paste_is_one_text_however_it_comes(size, takes_text):
    stream = f"j{START}{HOSTILE}{END}k"
    chunks = [stream[place : place + size] for place in range(0, len(stream), size)]
    assert events_of(*chunks, takes_text=takes_text) == [("Key", "j"), ("Paste", CLEANED), ("Key", "k")]


def test_a_paste_cannot_end_itself():
    assert events_of(f"{START}a{END}q{END}") == [("Paste", "a[201~q")]
    assert events_of(f"{START}a{END}n{START}b{END}") == [("Paste", "a"), ("Key", "n"), ("Paste", "b")]


def test_a_burst_of_text_is_no_typing():
    text = "the quick brown fox\x1bq jumps over it\r"
    assert events_of(text, "q") == [("Paste", "the quick brown foxq jumps over it\n"), ("Paste", "q")]
    assert events_of(text, takes_text=True)[0][0] == "Paste"


@pytest.mark.parametrize(
    "keys", ["j" * 200, "\x1b[A" * 50, "\x1b[<35;10;10M" * 50, "n\x1b\x1b", "\x1bOP", "jkjkjk" * 20]
)
def test_keys_that_come_at_once_are_keys(keys):
    assert "Paste" not in {kind for kind, _ in events_of(keys)}


def test_what_is_typed_ahead_into_a_field_stays_keys():
    typed = "a rather long name with many letters\r"
    assert events_of(typed, takes_text=True)[-1] == ("Key", "enter")


def test_lines_pasted_into_a_field_do_not_leave_it():
    text = "a rather long name\rq and a second line\r"
    assert events_of(text, takes_text=True) == [("Paste", "a rather long name\nq and a second line\n")]


def test_outside_a_field_nothing_happens_and_it_is_told_once(tmp_path):
    async def steps() -> None:
        app = make_app(make_store(tmp_path), tmp_path)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            before = app.screen
            for _ in range(2):
                app.post_message(events.Paste("q\x1bqDy\nn"))
                await settle(pilot)
            assert app.screen is before and app.is_running and len(app._notifications) == 1

    run(steps())


def test_into_a_field_goes_one_line_without_controls(tmp_path):
    async def steps() -> None:
        app = make_app(make_store(tmp_path), tmp_path)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            await pilot.press("slash")
            await until(pilot, lambda: isinstance(app.focused, Input))
            app.post_message(events.Paste("al\x1bp\x07ha\r\nbe\tta\n"))
            field = app.focused
            assert await until(pilot, lambda: field.value) == "alpha be ta"  # type: ignore[union-attr]
            await pilot.press("escape")

    run(steps())


def test_into_an_editor_go_lines_without_controls(tmp_path):
    async def steps() -> None:
        app = make_app(make_store(tmp_path), tmp_path)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            area = TextArea()
            await app.screen.mount(area)
            area.focus()
            await settle(pilot)
            app.post_message(events.Paste("a = 1\r\nb\x1b[2J = 2\n"))
            await settle(pilot)
            assert area.text == "a = 1\nb[2J = 2\n"

    run(steps())


@pytest.mark.parametrize("marked", [True, False])
def test_the_console_of_a_terminal_goes_on_after_a_paste(tmp_path, marked):
    with Terminal(tmp_path / "runs", tmp_path, columns=100, lines=30) as terminal:
        terminal.shows("new", "help")
        text = "some text\x1bq and more of it\nq\x1b\x1bq"
        terminal.press(f"{START}{text}{END}" if marked else text)
        terminal.shows("text fields only")
        assert not terminal.has_ended()
        time.sleep(2 * BURST_S)  # what comes sooner belongs to the paste
        terminal.press("q")
        terminal.until(terminal.has_ended)
