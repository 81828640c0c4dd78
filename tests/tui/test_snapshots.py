"""Whole screens, each at one size, compared with SVG pictures in snapshots/ that somebody has looked at.

After a change that is meant, accept the new pictures and look at them in the diff of your commit, or in a browser:

    LREG_UPDATE_SNAPSHOTS=1 python -m pytest tests/tui/test_snapshots.py
"""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Input, TextArea
from tui import pictures, scenery, study_scenery
from tui.driving import Quick, make_app, run, settle, until

from engine.presets import catalog
from engine.runs.store import RunStore
from lreg_tui.charts.chart import Chart
from lreg_tui.compare.compare_screen import CompareScreen
from lreg_tui.presets.preset_editor import PresetEditorScreen
from lreg_tui.runs.dashboard import DashboardScreen
from lreg_tui.runs.machine_panel import MachinePanel
from lreg_tui.runs.run_screen import RunScreen
from lreg_tui.studies.study_screen import StudyScreen
from lreg_tui.transfers.transfer_screen import TransferScreen
from lreg_tui.widgets.log_tail import LogTail


@pytest.fixture(scope="module", autouse=True)
def _catalog() -> None:
    catalog.load()


@pytest.fixture
def store(tmp_path, monkeypatch) -> RunStore:
    return scenery.freeze(monkeypatch, tmp_path)


def picture(store: RunStore, folder: Any, size: tuple[int, int], scene: Any, start: str = "vanilla") -> str:
    """A picture of what `scene(pilot, app)` brings about."""

    async def go() -> str:
        app = make_app(store, folder)
        async with app.run_test(size=size):
            pilot = Quick(app)
            count = len(store.list()) + len(store.transfers())
            await until(pilot, lambda: len(app.feed.rows) == count and isinstance(app.screen, DashboardScreen))
            await until(pilot, lambda: not count or app.screen.query_one(LogTail).path)  # the cursor rests on a run
            await settle(pilot)
            if count and start:
                await put_cursor_on(pilot, start)
                await overlaid(pilot, 1)
            await scene(pilot, app)
            await settle(pilot)
            for field in [*app.screen.query(Input), *app.screen.query(TextArea)]:
                field.cursor_blink = False
            await settle(pilot)
            return pictures.take(app)

    return run(go())


def charts(app: Any) -> list[Chart]:
    return [chart for chart in app.screen.query(Chart) if chart.is_on_screen]


async def put_cursor_on(pilot: Any, name: str) -> None:
    """And let it rest there until log and curves are that run's."""
    table, tail = pilot.app.screen.table, pilot.app.screen.query_one(LogTail)
    table.move_to([row.name for row in table.runs.lines].index(name))
    await until(pilot, lambda: tail.path == table.runs.cursor_row.path / "log.txt")
    await until(pilot, lambda: tail.lines or not tail.is_on_screen)
    await settle(pilot)


async def overlaid(pilot: Any, count: int) -> None:
    """Until so many runs have their curves in every chart."""

    def drawn(chart: Chart) -> bool:
        return len(chart.lines) == count and all(len(line.y) for line in chart.lines)

    await until(pilot, lambda: charts(pilot.app) and all(map(drawn, charts(pilot.app))))


async def dashboard(pilot: Any, app: Any) -> None:
    """Two runs are overlaid; the log is that of a run that goes on; the machine has been looked at."""
    for name in ("sam-0.05", "quickstart"):
        await put_cursor_on(pilot, name)
        await pilot.press("space")
    await overlaid(pilot, 2)
    await until(pilot, lambda: app.screen.query_one(MachinePanel).render().plain)


async def crashed(pilot: Any, app: Any) -> None:
    await put_cursor_on(pilot, "gam-smooth")
    await until(pilot, lambda: app.screen.query_one("#notice").display)
    await until(pilot, lambda: all(chart.lines and chart.lines[0].label == "gam-smooth" for chart in charts(app)))


async def compare(pilot: Any, app: Any) -> None:
    for name in ("vanilla", "sam-0.05"):
        await put_cursor_on(pilot, name)
        await pilot.press("space")
    await pilot.press("c")
    screen = await until(pilot, lambda: app.screen if isinstance(app.screen, CompareScreen) else None)
    await until(pilot, lambda: screen.result is not None)
    screen.action_show_tab("results")
    await settle(pilot)


async def editor(pilot: Any, app: Any) -> None:
    app.open_editor("quickstart")
    screen = await until(pilot, lambda: app.screen if isinstance(app.screen, PresetEditorScreen) else None)
    await until(pilot, lambda: screen.checked is not None)


async def run_screen(pilot: Any, app: Any) -> None:
    await put_cursor_on(pilot, "quickstart")
    await pilot.press("enter")
    screen = await until(pilot, lambda: app.screen if isinstance(app.screen, RunScreen) else None)
    await until(pilot, lambda: screen.files is not None and charts(app) and all(chart.lines for chart in charts(app)))


async def transfer(pilot: Any, app: Any) -> None:
    await put_cursor_on(pilot, "sam-0.05")
    await pilot.press("t")
    screen = await until(pilot, lambda: app.screen if isinstance(app.screen, TransferScreen) else None)
    await until(pilot, lambda: screen.checked is not None and screen.checked.plan is not None)


async def study(pilot: Any, app: Any) -> None:
    app.open_study(study_scenery.study_folder(app.store.root))
    screen = await until(pilot, lambda: app.screen if isinstance(app.screen, StudyScreen) else None)
    await until(pilot, lambda: screen.study is not None)
    await until(pilot, lambda: screen.query_one(LogTail).lines or not screen.has_class("-log"))
    await pilot.press("down", "down", "right")


SCENES = {
    "dashboard-120x40": dashboard,
    "crashed-80x24": crashed,
    "run-200x60": run_screen,
    "compare-120x40": compare,
    "editor-80x24": editor,
    "transfer-80x24": transfer,
    "study-120x40": study,
}


@pytest.mark.parametrize("name", SCENES)
def test_a_screen_looks_as_accepted(store, tmp_path, name):
    scenes = study_scenery if SCENES[name] is study else scenery
    scenes.fill(store.root.absolute())
    size = tuple(map(int, name.partition("-")[2].split("x")))
    svg = picture(store, tmp_path, size, SCENES[name], start="" if SCENES[name] is study else "vanilla")
    pictures.check(name, svg, tmp_path)


def test_every_accepted_picture_is_still_compared():
    assert sorted(path.stem for path in pictures.FOLDER.iterdir()) == sorted(SCENES)


# -- the comparing itself --------------------------------------------------------------------------------------------


def drawn(text: str, style: str = "r1", versions: str = "textual 8.2, rich 15.0") -> str:
    lines = "\n".join(
        f'<text class="{style}" x="{12.2 * 3}" y="20" textLength="9" clip-path="url(#terminal-line-{number})">{line}'
        "</text>"
        for number, line in enumerate(text.splitlines())
    )
    return f"<!-- {versions} -->\n<svg>{lines}</svg>\n"


def test_a_picture_that_is_missing_or_differs_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(pictures.UPDATE, raising=False)
    before = drawn("one&#160;run\nlog")
    assert pictures.grid(before) == ["   one run", "   log"]
    with pytest.raises(AssertionError, match="no accepted picture"):
        pictures.check("view", before, tmp_path, tmp_path / "none")
    assert pictures.difference(before, before) == ""
    assert "+   two runs" in pictures.difference(before, drawn("two&#160;runs\nlog"))
    assert "colours or styles" in pictures.difference(before, drawn("one&#160;run\nlog", "r2"))


def test_pictures_of_other_versions_are_compared_by_their_words():
    before = drawn("one&#160;run\nlog")
    newer = "textual 9.0, rich 15.0"
    assert pictures.difference(before, drawn("one&#160;&#160;run\nlog", "r2", newer)) == ""
    assert "+two runs" in pictures.difference(before, drawn("two&#160;runs\nlog", versions=newer))


def test_an_accepted_picture_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(pictures.UPDATE, "1")
    pictures.check("view", drawn("one"), tmp_path, tmp_path / "kept")
    monkeypatch.delenv(pictures.UPDATE)
    pictures.check("view", drawn("one"), tmp_path, tmp_path / "kept")
    with pytest.raises(AssertionError, match="the text differs"):
        pictures.check("view", drawn("other"), tmp_path, tmp_path / "kept")
