"""Ways from one screen to another with a run in hand: edit its preset, compare it, launch one and find it selected."""

from __future__ import annotations

import pytest
from textual.widgets import Input
from tui.driving import Quick, calm, make_app, make_job, make_run, run, settle, until
from tui.showing import show

from engine.base import machine
from engine.base.machine import Load
from engine.jobs import spawn
from engine.presets import catalog
from engine.runs.store import RunReader, RunStore
from lreg_tui.app import console
from lreg_tui.app.help import HelpScreen
from lreg_tui.compare.compare_screen import CompareScreen
from lreg_tui.presets.picking import PickPresetScreen
from lreg_tui.presets.preset_editor import PresetEditorScreen
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.runs.run_screen import RunScreen
from lreg_tui.runs.run_table import RunTable, TableLayout
from lreg_tui.widgets.pick_list import PickList


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch, tmp_path):
    catalog.load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure", lambda runs: Load(0.5, 4, 2**30, 2**32))
    monkeypatch.setattr(console, "INTERVAL_S", 0.1)


@pytest.fixture
def store(tmp_path) -> RunStore:
    made = [make_run(tmp_path / "runs", name, age_s=age) for name, age in (("alpha", 300.0), ("beta", 200.0))]
    make_job(tmp_path / "runs", made)
    return RunStore(tmp_path / "runs")


def drive(store, folder, steps, size=(80, 24)):
    async def go():
        app = make_app(store, folder)
        async with app.run_test(size=size):
            pilot = Quick(app)
            await until(pilot, lambda: app.screen.query(RunTable) and len(app.feed.rows) == 3)
            await settle(pilot)
            await steps(pilot, app)

    run(go())


def shown(app) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def put_cursor_on(pilot, name: str) -> None:
    """`transfer`: the job, whose name says what it evaluates; it is folded below its run."""
    table = pilot.app.screen.query_one(RunTable)
    if name == "transfer":
        table.runs.select(next(row.id for row in pilot.app.feed.rows if "->" in row.name))
        await settle(pilot)
        return
    table.move_to([row.name for row in table.runs.lines].index(name))
    await settle(pilot)


def test_e_edits_the_preset_of_the_run_under_the_cursor(store, tmp_path):
    async def steps(pilot, app):
        await put_cursor_on(pilot, "transfer")
        await pilot.press("e")
        assert isinstance(app.screen, DashboardScreen)  # a job has no preset
        await put_cursor_on(pilot, "alpha")
        await pilot.press("e")
        editor = await until(pilot, lambda: app.screen if isinstance(app.screen, PresetEditorScreen) else None)
        await until(pilot, lambda: editor.checked is not None)
        assert editor.checked.preset.name == "alpha"

    drive(store, tmp_path, steps)


def test_c_with_one_run_asks_what_to_compare_it_with(store, tmp_path):
    async def steps(pilot, app):
        await put_cursor_on(pilot, "alpha")
        await pilot.press("c")
        asked = await until(pilot, lambda: app.screen if isinstance(app.screen, PickList) else None)
        assert [choice.label for choice in asked.choices] == ["beta"]
        await pilot.press("space", "enter")
        compare = await until(pilot, lambda: app.screen if isinstance(app.screen, CompareScreen) else None)
        assert [run_id.split("-")[2] for run_id in compare.run_ids] == ["alpha", "beta"]
        await settle(pilot)

    drive(store, tmp_path, steps)


def test_two_marked_seeds_of_an_arm_are_compared(store, tmp_path):
    async def steps(pilot, app):
        app.screen.query_one(RunTable).show_as(TableLayout(sort="name", group=""))
        for name in ("alpha", "beta"):
            await put_cursor_on(pilot, name)
            await pilot.press("space")
        await pilot.press("c")
        compare = await until(pilot, lambda: app.screen if isinstance(app.screen, CompareScreen) else None)
        assert [run_id.split("-")[2] for run_id in compare.run_ids] == ["alpha", "beta"]
        await settle(pilot)

    drive(store, tmp_path, steps)


def test_c_on_the_run_screen_compares_it_with_picked_ones(store, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, PickList))
        await pilot.press("enter")  # none is marked: the one under the cursor
        compare = await until(pilot, lambda: pilot.app.screen if isinstance(pilot.app.screen, CompareScreen) else None)
        assert compare.run_ids[0] == screen.run_id and len(compare.run_ids) == 2
        await settle(pilot)

    show(store, tmp_path, lambda: RunScreen(store.list()[0].id), doing)


def test_a_launched_run_is_under_the_cursor_whatever_the_order(store, tmp_path, monkeypatch):
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **options: None)

    async def steps(pilot, app):
        table = app.screen.query_one(RunTable)
        table.show_as(TableLayout(sort="name", reverse=True, group=""))
        await put_cursor_on(pilot, "alpha")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, PickPresetScreen) and app.screen.listed)
        await pilot.press(*"quickstart", "enter")
        await until(pilot, lambda: isinstance(app.screen, PresetEditorScreen) and app.screen.checked is not None)
        await pilot.press("ctrl+l")
        name = await until(pilot, lambda: next(iter(app.screen.query("#name").results(Input)), None))
        name.value = "mine"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and len(app.feed.rows) == 4)
        await until(pilot, lambda: table.runs.cursor_row.name == "mine")
        assert [row.name for row in table.runs.lines] == ["mine", "beta", "alpha"]
        await settle(pilot)

    drive(store, tmp_path, steps)
    assert len(store.list()) == 3 and any(RunReader(run.path).facts["name"] == "mine" for run in store.list())


def test_f1_helps_where_a_question_mark_is_a_letter(store, tmp_path):
    async def steps(pilot, app):
        await pilot.press("a")
        picker = await until(pilot, lambda: app.screen if isinstance(app.screen, PickPresetScreen) else None)
        await pilot.press("question_mark")  # settle would wait for the end of what asks
        assert app.screen is picker and picker.query_one(Input).value == "?"
        assert shown(app).rstrip().endswith("F1 help")
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))

    drive(store, tmp_path, steps)


def test_a_term_that_is_not_whole_leaves_the_table_as_it_was(store, tmp_path):
    async def steps(pilot, app):
        table = app.screen.query_one(RunTable)
        await pilot.press("slash")
        await until(pilot, lambda: app.screen.query(Input))

        async def left_by(text: str) -> list[str]:
            app.screen.query_one(Input).value = text
            await calm(pilot)
            return [row.name for row in table.runs.lines]

        for text in ("name:alpha", "name:alpha sta", "name:alpha state:", "name:alpha foo:bar", "foo", "state:runx"):
            assert await left_by(text) == ["alpha"]  # what leaves no run changes nothing before it is accepted
        assert len(await left_by("")) == 2  # the job is folded away
        await pilot.press("escape")
        await settle(pilot)
        assert len(table.runs.lines) == 2

    drive(store, tmp_path, steps)
