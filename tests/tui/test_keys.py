"""The grammar of keys: a key means the same wherever it is pressed, and is called what it means."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest
from textual.binding import Binding, BindingsMap
from textual.dom import DOMNode

import lreg_tui
from lreg_tui.system.keys import KEYS
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
        assert binding.description in meaning.words, f"{binding.key} of {kind.__name__} means: {meaning.meaning}"
        assert binding.tooltip, binding


def test_what_the_console_has_keys_for_is_what_the_table_lists():
    used = {binding.key for kind in every_class() for binding in bindings(kind)} | {"ctrl+p"}
    assert not used - MEANINGS.keys()
    unused = KEYS.keys() - {MEANINGS[key] for key in used}
    assert not unused, unused
