"""The grammar of keys: a key means the same wherever it is pressed, and is called what it means."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding, BindingsMap
from textual.dom import DOMNode
from textual.message_pump import MessagePump
from textual.widgets import Static
from tui.driving import on_dashboard, settle, until

import lreg_tui
from engine.base.errors import SettingsError
from lreg_tui.charts.chart import Chart
from lreg_tui.runs.run_columns import BY_KEY
from lreg_tui.system import config
from lreg_tui.system.keys import KEYS
from lreg_tui.widgets import themes
from lreg_tui.widgets.dialog import ConfirmScreen
from lreg_tui.widgets.keys import bind

ANSWERS = {"y": "yes", "n": "no"}  # of a question; what everybody expects there
MEANINGS = {binding.key: meaning for meaning in KEYS for binding in Binding.make_bindings([bind(meaning, "", "any")])}


MADE = {"_decorated_handlers", "_merged_bindings", "_reactives", "_computes", "_css_type_name", "_css_type_names"}
MADE |= {"_inherit_bindings", "_inherit_css", "_inherit_component_classes"}  # by Textual, for every class


def every_class(base: type[MessagePump] = DOMNode) -> list[type[Any]]:
    """All of the console's classes of a kind: screens, widgets, its app."""
    for module in pkgutil.walk_packages(lreg_tui.__path__, "lreg_tui."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found: list[type[Any]] = [base]
    for kind in found:
        found += [below for below in kind.__subclasses__() if below not in found]
    return [kind for kind in found if kind.__module__.startswith("lreg_tui")]


def bindings(kind: type[DOMNode]) -> list[Binding]:
    return [binding for _, binding in BindingsMap(kind.__dict__.get("BINDINGS", ()))]


def test_no_key_stands_in_the_table_twice():
    names = [name for key in KEYS.values() for name in key.names.split(",")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("kind", list(filter(bindings, every_class())), ids=lambda kind: kind.__name__)
def test_every_key_has_its_one_meaning_and_is_called_by_it(kind):
    for binding in bindings(kind):
        if kind is ConfirmScreen and ANSWERS.get(binding.key) == binding.description:
            continue
        assert binding.key in MEANINGS, f"{binding.key} of {kind.__name__} is not in the table"
        meaning = KEYS[MEANINGS[binding.key]]
        assert binding.description in (meaning.words or {binding.description}), (
            f"{binding.key} of {kind.__name__} means: {meaning.meaning}"
        )
        assert binding.tooltip, binding


def test_what_the_console_has_keys_for_is_what_the_table_lists():
    used = {binding.key for kind in every_class() for binding in bindings(kind)} | {"ctrl+p"}
    assert not used - MEANINGS.keys()
    unused = KEYS.keys() - {MEANINGS[key] for key in used}
    assert not unused, unused


def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> config.Config:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "lreg").mkdir(exist_ok=True)
    (tmp_path / "lreg" / "config.toml").write_text(text)
    return config.load(themes.names(), BY_KEY)


def test_a_configuration_is_read_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.load(themes.names(), BY_KEY) == config.Config()
    keys = '[keys]\nstop = "X"\nx_axis = "s"\nnext = ","\ncursor_left = "n"\n'
    text = f'theme = "nord"\ncolumns = ["age", "optimizer.kind", "sharpness"]\nrefresh = 2\nsmoothing = 0.5\n{keys}'
    found = configured(tmp_path, monkeypatch, text)
    assert found.columns == ("age", "optimizer.kind", "sharpness")
    assert (found.theme, found.refresh, found.smoothing) == ("nord", 2.0, 0.5)
    assert found.keys == {"stop": "X", "x_axis": "s", "next": ",", "cursor_left": "n"}, "keys may change places"


def test_all_that_is_wrong_in_a_configuration_is_told_at_once(tmp_path, monkeypatch):
    keys = '[keys]\nstop = "x"\npin = "enter"\nstopp = "X"\nback = "b"\n'
    text = f'theme = "lreg-drak"\ncolumns = ["stat"]\nrefresh = 0\nsmooting = 0.5\n{keys}'
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, monkeypatch, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 8 and all(line.startswith(f"{tmp_path}/lreg/config.toml: ") for line in lines)
    for words in (
        'theme: found "lreg-drak"; allowed: one of: lreg-dark, ',
        "refresh: found 0",
        'columns: found "stat"; allowed: a list of name, ',
        "(did you mean state?)",
        "smooting: found an unknown key; allowed: theme, columns, refresh, smoothing, keys (did you mean smoothing?)",
        'keys.stop: found "x"; allowed: a character, or f2 to f12, that means nothing else (it means x_axis)',
        'keys.pin: found "enter"',
        "keys.stopp: found an unknown key",
        "keys.back: found an unknown key",
    ):
        assert any(words in line for line in lines), (words, lines)


def test_changed_keys_are_those_of_the_console_its_help_and_its_words(tmp_path):
    program = (
        "from lreg_tui.system import keys; keys.change({'undo': 'Z', 'next': ','})\n"
        "from lreg_tui.runs.acting import ACTIONS, UNTIL; from lreg_tui.widgets.log_tail import LogTail\n"
        "print(ACTIONS['undo'].key, UNTIL[0], LogTail.BINDINGS[2].key)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "Z Z comma\n"


def on_screen(app) -> list[str]:
    return [strip.text for strip in app.screen._compositor.render_strips()]


def test_a_letter_goes_to_each_panel_in_view(tmp_path):
    async def doing(pilot, app):
        dashboard = app.screen
        panels = {chart.region.offset: chart for chart in dashboard.query(Chart)}
        await pilot.press("apostrophe")
        await settle(pilot)
        letters = {label.region.offset: str(label.content) for label in app.screen.query(Static)}
        assert len(letters) == 5 and panels.keys() < letters.keys(), "table, three charts, log"
        place, chart = list(panels.items())[1]
        await pilot.press(letters[place])
        await settle(pilot)
        assert app.screen is dashboard and chart.has_focus
        await pilot.press("apostrophe", "escape")
        await settle(pilot)
        assert app.screen is dashboard and chart.has_focus

    on_dashboard(tmp_path, doing, size=(120, 40))


def test_a_letter_goes_to_each_setting_of_the_form(tmp_path):
    async def doing(pilot, app):
        app.open_editor("quickstart")
        await until(pilot, lambda: getattr(app.screen, "checked", None) is not None)
        await settle(pilot)
        editor = app.screen
        await pilot.press("apostrophe")
        await settle(pilot)
        third = [str(label.content) for label in app.screen.query(Static)][2]
        settings = [line.identity for line in editor.form.lines if not line.is_passed_over]
        await pilot.press(third)
        await settle(pilot)
        assert editor.form.listed.has_focus and editor.form.current == settings[2]

    on_dashboard(tmp_path, doing, size=(120, 40))


def test_what_was_told_can_be_read_again_and_is_told_once(tmp_path):
    async def doing(pilot, app):
        for message in ("first", "second", "second"):
            app.notify(message, markup=False)
        await settle(pilot)
        assert [note.message for note in app._notifications] == ["first", "second"]
        await pilot.press("M")
        await settle(pilot)
        lines = [line for line in on_screen(app) if "first" in line or "second" in line]
        assert ["second" in line for line in lines][:2] == [True, False]
        await pilot.press("q")
        await settle(pilot)
        assert app.is_running and len(app.screen_stack) == 1

    on_dashboard(tmp_path, doing, size=(60, 20))


def test_a_full_screen_and_a_zoomed_axis_say_so_and_how_to_leave_them(tmp_path):
    async def doing(pilot, app):
        await until(pilot, lambda: app.screen.query(Chart).first().lines)
        await pilot.press("z", "plus")
        await settle(pilot)
        lines = on_screen(app)
        assert "z leave full screen" in lines[-1] and any("zoomed, 0: all" in line for line in lines), lines
        await pilot.press("0", "z")
        await settle(pilot)
        assert "leave" not in on_screen(app)[-1] and not any("zoomed" in line for line in on_screen(app))

    on_dashboard(tmp_path, doing, size=(120, 40))


def test_nothing_private_of_textual_is_overridden():
    for kind in every_class(MessagePump):
        theirs = {name for base in kind.__mro__ if base.__module__.startswith("textual") for name in base.__dict__}
        own = {name for name in kind.__dict__ if name.startswith("_") and not name.startswith("__")}
        assert not own & theirs - MADE, f"{kind.__name__}: {own & theirs - MADE}"


def test_a_screen_that_is_covered_draws_nothing(tmp_path):
    async def doing(pilot, app):
        dashboard = app.screen
        app.action_help()
        await settle(pilot)
        assert not dashboard.is_current and app.screen.is_current
        app.screen.dismiss()
        await settle(pilot)
        assert dashboard.is_current
        app.push_screen(ConfirmScreen("Delete alpha?"))
        await settle(pilot)
        assert dashboard.is_current, "a dialog leaves it in view"

    on_dashboard(tmp_path, doing, size=(120, 40))


def test_what_is_configured_is_what_the_console_begins_with(tmp_path):
    async def doing(pilot, app):
        assert app.theme == "nord" and app.feed.interval == 2.0
        assert [column.key for column in app.screen.table.columns][1:] == ["seed", "age"]
        assert [panel.chart.smoothing for panel in app.screen.panels.all] == [0.5, 0.0, 0.0]

    chosen = config.Config("nord", ("seed", "age"), refresh=2.0, smoothing=0.5)
    on_dashboard(tmp_path, doing, size=(120, 40), config=chosen)
