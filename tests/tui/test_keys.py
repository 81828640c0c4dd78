"""The grammar of keys: a key means the same wherever it is pressed, and is called what it means."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from textual.binding import Binding, BindingsMap
from textual.dom import DOMNode

import lreg_tui
from engine.base.errors import SettingsError
from lreg_tui.system import config
from lreg_tui.system.keys import KEYS
from lreg_tui.widgets import themes
from lreg_tui.widgets.confirm import ConfirmScreen
from lreg_tui.widgets.keys import bind

ANSWERS = {"y": "yes", "n": "no"}  # of a question; what everybody expects there
MEANINGS = {binding.key: meaning for meaning in KEYS for binding in Binding.make_bindings([bind(meaning, "")])}


def every_class() -> list[type[DOMNode]]:
    """All of the console's screens and widgets, and its app."""
    for module in pkgutil.walk_packages(lreg_tui.__path__, "lreg_tui."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found: list[type[DOMNode]] = [DOMNode]
    for kind in found:
        found += [below for below in kind.__subclasses__() if below not in found]
    return [kind for kind in found if kind.__module__.startswith("lreg_tui") and "BINDINGS" in kind.__dict__]


def bindings(kind: type[DOMNode]) -> list[Binding]:
    return [binding for _, binding in BindingsMap(kind.__dict__["BINDINGS"])]


def test_no_key_stands_in_the_table_twice():
    names = [name for key in KEYS.values() for name in key.names.split(",")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
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
    return config.load(themes.names())


def test_a_configuration_is_read_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.load(themes.names()) == config.Config()
    keys = '[keys]\nstop = "X"\nx_axis = "s"\nnext = ","\ncursor_left = "n"\n'
    text = f'theme = "nord"\nrefresh = 2\nsmoothing = 0.5\n{keys}'
    found = configured(tmp_path, monkeypatch, text)
    assert (found.theme, found.refresh, found.smoothing) == ("nord", 2.0, 0.5)
    assert found.keys == {"stop": "X", "x_axis": "s", "next": ",", "cursor_left": "n"}, "keys may change places"


def test_all_that_is_wrong_in_a_configuration_is_told_at_once(tmp_path, monkeypatch):
    keys = '[keys]\nstop = "x"\npin = "enter"\nstopp = "X"\nback = "b"\n'
    text = f'theme = "lreg-drak"\nrefresh = 0\nsmooting = 0.5\n{keys}'
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, monkeypatch, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 7 and all(line.startswith(f"{tmp_path}/lreg/config.toml: ") for line in lines)
    for words in (
        'theme: found "lreg-drak"; allowed: one of: lreg-dark, ',
        "refresh: found 0",
        "smooting: found an unknown key; allowed: theme, refresh, smoothing, keys (did you mean smoothing?)",
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
