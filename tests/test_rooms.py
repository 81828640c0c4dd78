"""What imports what: rooms stand on each other, nothing runs in a circle, the engine knows no terminal."""

from __future__ import annotations

import pytest
import rooms

ORDER = ["engine.ground", "engine.first.left", "engine.first.right", "lreg_tui.low", "lreg_tui.high"]


def graph(**files: str) -> rooms.Imports:
    """The imports of some made-up modules; __ in a name stands for a dot."""
    modules = {name.replace("__", "."): source for name, source in files.items()}
    return rooms.imports(modules)


@pytest.fixture(scope="module")
def ours() -> rooms.Imports:
    return rooms.imports(rooms.sources())


def test_no_import_leads_upwards(ours):
    assert rooms.upward(ours, rooms.order()) == []


def test_no_imports_run_in_a_circle(ours):
    assert rooms.circles(ours) == []


def test_no_folders_import_each_other_in_a_circle(ours):
    assert rooms.circles(rooms.between_folders(ours)) == []


def test_a_planted_circle_of_folders_is_seen():
    files = {
        "lreg_tui.low.a": "from lreg_tui.high import c",
        "lreg_tui.low.b": "",
        "lreg_tui.high.c": "",
        "lreg_tui.d": "",
    }
    planted = rooms.imports(files | {"lreg_tui.high.d": "def f():\n    from lreg_tui.low.b import x"})
    assert rooms.circles(planted) == []
    assert rooms.circles(rooms.between_folders(planted)) == [["lreg_tui.high", "lreg_tui.low"]]


def test_every_file_lies_in_a_room(ours):
    outside = {"engine", "engine.study", "engine.worker", "lreg_tui"}
    assert {name for name in ours if not rooms.room_of(name, rooms.order())} == outside


def test_the_picture_in_the_docs_is_that_of_the_code():
    """`python tests/rooms.py` draws it again; line numbers may differ a little."""
    names = [line for line in rooms.draw().splitlines() if "font-weight" in line]
    assert names == [line for line in rooms.PICTURE.read_text().splitlines() if "font-weight" in line]


@pytest.mark.parametrize(
    "source",
    [
        "from engine.first.left import b",
        "from engine.first.left.b import name",
        "import engine.first.left.b as other",
        "def later():\n    from engine.first.left.b import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from engine.first.left.b import Name",
        "from ..first.left import b",
        "try:\n    from ..first.left.b import name\nexcept ImportError:\n    pass",
    ],
)
def test_a_planted_import_upwards_is_seen(source):
    planted = graph(engine="", engine__ground="", engine__ground__a=source, engine__first__left__b="")
    assert rooms.upward(planted, ORDER) == [
        "engine.ground.a (engine.ground) imports engine.first.left.b (engine.first.left)"
    ]


def test_a_room_imports_nothing_that_lies_in_no_room_and_the_engine_no_console():
    planted = graph(engine__ground__a="import engine.worker\nimport lreg_tui.app", engine__worker="", lreg_tui__app="")
    assert len(rooms.upward(planted, ORDER)) == 2


def test_a_planted_import_upwards_within_the_console_is_seen():
    modules = {"lreg_tui": "", "lreg_tui.low.a": "def f():\n    from lreg_tui.high import b", "lreg_tui.high.b": ""}
    assert rooms.upward(rooms.imports(modules), ORDER) == [
        "lreg_tui.low.a (lreg_tui.low) imports lreg_tui.high.b (lreg_tui.high)"
    ]
    modules["lreg_tui.low.a"] = "from lreg_tui import __version__\nimport engine.worker\nfrom engine.ground import c"
    assert rooms.upward(rooms.imports(modules | {"engine.worker": "", "engine.ground.c": ""}), ORDER) == []


def test_imports_downwards_and_within_a_room_are_fine():
    planted = graph(
        engine__ground__a="",
        engine__ground__b="from engine.ground.a import x",
        engine__first__right__c="from engine.ground import a, b\nfrom . import d",
        engine__first__right__d="",
        engine__first__right="",
    )
    assert rooms.upward(planted, ORDER) == [] and rooms.circles(planted) == []


@pytest.mark.parametrize("last", ["import engine.ground.a", "def f():\n    from engine.ground import a"])
def test_a_planted_circle_is_seen(last):
    planted = graph(
        engine__ground__a="from engine.ground.b import x",
        engine__ground__b="from engine.ground.c import x",
        engine__ground__c=last,
        engine__ground__d="from engine.ground.a import x",
    )
    assert rooms.circles(planted) == [["engine.ground.a", "engine.ground.b", "engine.ground.c"]]
