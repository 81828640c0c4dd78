"""Keys that come in one burst, as over a slow link, act in the order in which they were pressed."""

from __future__ import annotations

import pytest
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input
from tui.driving import calm, key_event, run

from lreg_tui.widgets.dialog import LineInput
from lreg_tui.widgets.keys import KeysInOrder
from lreg_tui.widgets.pick_list import Choice, PickList

CHOICES = [Choice(name) for name in ("adam", "sgd", "sam", "gsam")]


class Host(KeysInOrder):
    def __init__(self):
        super().__init__()
        self.submitted, self.picked = [], []

    def compose(self) -> ComposeResult:
        with Vertical():
            yield LineInput("12345")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.submitted.append(event.value)


def burst(keys, screen=None) -> Host:
    """Send keys without waiting between them."""

    async def go():
        app = Host()
        async with app.run_test() as pilot:
            if screen is not None:
                app.push_screen(screen, app.picked.append)
            await calm(pilot)
            for key in keys:
                app.post_message(key_event(key))
            await calm(pilot)
        return app

    return run(go())


def test_editing_keys_do_not_overtake_letters_nor_fall_behind_them():
    assert burst(["ctrl+u", "7", "8", "enter"]).submitted == ["78"]
    assert burst(["end", "6", "left", "backspace", "x", "enter"]).submitted == ["1234x6"]


@pytest.mark.parametrize(
    ("keys", "several", "expected"),
    [
        ([*"gsam", "enter"], False, ("gsam",)),
        ([*"sam", "down", "enter"], False, ("gsam",)),
        ([*"sgd", "space", "ctrl+u", *"gsam", "space", "enter"], True, ("sgd", "gsam")),
        ([*"sa", "ctrl+a", "enter"], True, ("sam", "gsam")),
        ([*"xyz", "enter", "ctrl+u", *"gsam", "enter"], False, ("gsam",)),  # nothing is called so
        ([*"xyz", "ctrl+a", "ctrl+u", "enter"], True, ()),
        (["s", "escape"], False, None),
    ],
)
def test_what_is_picked_is_what_the_letters_before_the_key_have_left(keys, several, expected):
    assert burst(keys, PickList("optimizer", CHOICES, several=several)).picked == [expected]
