"""Studies in the console: their list, the grid of one, and the keys that steer and start them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studying import STAMP, arm, job, study, transfers
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Input, Static
from tui.driving import NOBODY, calm, change_json, settle, until
from tui.showing import show

from engine.base.errors import RunError
from engine.jobs.transfer_job import TransferJob
from engine.presets import catalog
from engine.presets.preset import load_preset
from engine.runs.store import RunReader, RunStore
from engine.study.plan.document import load_study
from engine.study.plan.plan import Cell, Search, StudyAxis, StudyPlan
from engine.study.plan.snapshot import Watcher
from engine.study.schedule.job import Schedule
from engine.study.schedule.loop import StudyJob
from lreg_tui.charts.chart import Chart
from lreg_tui.compare.compare_screen import CompareScreen
from lreg_tui.runs.feed import Feed
from lreg_tui.runs.run_screen import RunScreen
from lreg_tui.studies.launch_study import PickStudyScreen, size_of, start
from lreg_tui.studies.report import Prose, ReportScreen
from lreg_tui.studies.studies_screen import StudiesScreen
from lreg_tui.studies.study_axes import StudyAxes, axes_of
from lreg_tui.studies.study_rows import WatchedStudy
from lreg_tui.studies.study_screen import StudyScreen
from lreg_tui.transfers.transfer_screen import TransferScreen
from lreg_tui.widgets.dialog import ConfirmScreen, LaunchingScreen
from lreg_tui.widgets.log_tail import LogTail

ROOT = Path(__file__).parent.parent.parent
EVIL = "\x1b]0;owned\x07[bold]x[/bold]\u202e"
HOLD = """
import sys, time
from engine.base.control import Control
from engine.runs.store import Run

with Run(sys.argv[1]) as job, Control().listening() as control:
    job.set_status(state="running", controllable=True)
    while not control.stop:
        wanted = "paused" if control.paused else "running"
        if job.status.state != wanted:
            job.set_status(state=wanted)
        time.sleep(0.01)
    job.set_status(state="stopped")
"""


@pytest.fixture(scope="module", autouse=True)
def _catalog() -> None:
    catalog.load()


def do(
    store: RunStore, plan: StudyPlan, cell: Cell, value: float = 0.5, state: str = "finished", step: int = 10
) -> Any:
    """The run of a cell, as a worker leaves it."""
    made = store.create(cell.preset, run_id=cell.run_id(plan.stamp))
    made.append([{"step": 0, "validation_loss": 2.0}, {"step": 1, "validation_loss": value}])
    made.set_status(state="running" if state == "crashed" else state, step=step, total=10, message="")
    if state == "crashed":
        change_json(made.path / "status.json", pid=NOBODY, process_started=1.0)
    made._close_metrics()
    return made


@pytest.fixture
def begun(tmp_path):
    """Two arms, three points, two meta-seeds: four runs have finished, one runs, one is to come."""
    store, plan = RunStore(tmp_path / "runs"), study()
    started = job(store.root, plan)
    started.set_status(state="stopped", step=4, total=6, message="4 of 6 runs")
    (started.path / "log.txt").write_text("the study began\n")
    for cell, value in zip(plan.grid(), (0.4, 0.6, 0.3, 0.31), strict=False):
        do(store, plan, cell, value)
    do(store, plan, plan.grid()[4], state="running", step=3)
    return store, plan, started.path


def opened(begun: Any, tmp_path: Path, doing: Any, size: tuple[int, int] = (100, 30)) -> None:
    """Open the study's screen and do something with it: `doing(pilot, screen)`."""
    store, _, path = begun

    async def scene(pilot, screen):
        await until(pilot, lambda: screen.study is not None)
        await settle(pilot)
        await doing(pilot, screen)

    show(store, tmp_path, lambda: StudyScreen(path), scene, size)


def lines(screen: StudyScreen) -> list[str]:
    """The heading and the rows of the grid, cell by cell."""
    grid = screen.grid
    rows = [grid.get_row_at(place) for place in range(grid.row_count)]
    return ["|".join(str(column.label) for column in grid.ordered_columns), *("|".join(map(str, row)) for row in rows)]


def said(screen: Any, where: str) -> str:
    return str(screen.query_one(f"#{where}", Static).content)


async def look(pilot: Any, screen: StudyScreen) -> None:
    await settle(pilot)
    await screen.look().wait()
    await settle(pilot)


def test_the_grid_tells_results_states_and_winners(begun, tmp_path):
    async def doing(pilot, screen):
        assert lines(screen)[:4] == [
            "arm|point|  mean ± 95%| seed 0| seed 1",
            "plain||★ 0.500±1.271| 0.4000 | 0.6000 ",
            "sam|0.001|☆ 0.305±0.064| 0.3000 | 0.3100 ",
            "sam|0.01|  |  ▸ 30% |      · ",
        ]
        assert "4 of 6 runs; 1 running" in said(screen, "head") and "stopped" in said(screen, "head")
        assert "plain   seed 0   ★ winner of its arm\nfinished   best validation loss 0.40000" in said(screen, "cell")
        assert all(words in said(screen, "legend") for words in ("0.3 ", "★ winner", "▸ running", "· to come"))

    opened(begun, tmp_path, doing)


def test_colour_is_never_the_only_difference(begun, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def doing(pilot, screen):
        plain, sam = lines(screen)[1:3]
        assert "▒0.4000" in plain and "| 0.6000" not in plain and "█0.3000" in sam

    opened(begun, tmp_path, doing)


def test_arrows_move_and_enter_opens_the_run(begun, tmp_path):
    store, plan, _ = begun

    async def doing(pilot, screen):
        await pilot.press("down", "right")
        assert screen.grid.current.run_id == plan.grid()[3].run_id(STAMP)
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.run_id == plan.grid()[3].run_id(STAMP)
        await pilot.press("escape", "end")
        assert pilot.app.screen is screen and screen.grid.current.state == "missing"
        await pilot.press("enter")
        assert pilot.app.screen is screen  # there is nothing to open
        await pilot.press("up", "up", "up", "left", "left", "left")
        assert screen.grid.current == screen.grid.study.rows[0].cells[0]

    opened(begun, tmp_path, doing)


def test_marked_runs_are_compared(begun, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("c")
        assert pilot.app.screen is screen  # one run is no comparison
        await pilot.press("space", "down", "asterisk")
        assert "●0.4000" in lines(screen)[1] and "▲0.3000" in lines(screen)[2]
        marked = list(screen.grid.marked)
        await pilot.press("c")
        assert isinstance(pilot.app.screen, CompareScreen) and list(pilot.app.screen.run_ids) == marked
        assert len(marked) == 3
        await pilot.press("escape")
        await pilot.press("escape")
        assert not screen.grid.marked and pilot.app.screen is screen

    opened(begun, tmp_path, doing)


def test_parallel_coordinates_lead_from_settings_to_results(begun, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("ctrl+t")
        await settle(pilot)
        axes = screen.query_one(StudyAxes)
        heading, *below = axes.frame.text().splitlines()
        assert heading.split()[:2] == ["arm", "meta.learning_rate"] and heading.endswith("validation loss")
        assert "0.300" in below[0] and any("⠤" in line for line in below) and not screen.grid.is_on_screen
        await pilot.press("up", "up", "up")  # to the best
        await settle(pilot)
        assert screen.grid.current_row.key == axes.key and "0.3" in said(screen, "cell")
        result = axes_of(screen.study, screen.grid.scale)[-1].places
        assert result[axes.key] == max(result.values()) and len(result) == 2  # one point has no result yet
        await pilot.press("escape")
        assert screen.focused is screen.grid

    opened(begun, tmp_path, doing)


def test_names_of_axes_stand_apart_where_there_is_little_room(begun, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("ctrl+t")
        await settle(pilot)
        heading = screen.query_one(StudyAxes).frame.text().splitlines()[0]
        assert heading.split()[0] == "arm" and heading.endswith(" mean best validation loss")
        assert heading.split()[1].startswith("meta.")

    opened(begun, tmp_path, doing, size=(60, 20))


def test_a_run_that_is_to_come_cannot_be_marked(begun, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("end", "right", "space", "asterisk")
        assert list(screen.grid.marked) == [screen.grid.study.rows[2].cells[0].run_id]

    opened(begun, tmp_path, doing)


def test_only_what_changes_is_drawn_again(begun, tmp_path):
    store, plan, _ = begun

    async def doing(pilot, screen):
        grid, regions = screen.grid, []
        monitored = grid.refresh
        grid.refresh = lambda *where, **options: regions.extend(where) or monitored(*where, **options)
        await look(pilot, screen)
        assert regions == []
        running = RunReader(store.root / plan.grid()[4].run_id(STAMP))
        change_json(running.path / "status.json", step=7)
        await look(pilot, screen)
        assert regions and all(region.y == 3 and region.height == 1 for region in regions)
        assert "▸ 70%" in lines(screen)[3]

    opened(begun, tmp_path, doing)


def test_many_points_and_seeds_scroll_and_the_cursor_stays_in_view(tmp_path):
    store = RunStore(tmp_path / "runs")
    rates = StudyAxis("meta.learning_rate", values=tuple(1e-4 * number for number in range(1, 41)))
    plan = study(seeds=tuple(range(10)), arms=(arm("sam", rates, penalty={"sam": {}}),), reference="sam")
    started = job(store.root, plan)
    cells = plan.grid()
    for place in (0, 9, -1):
        do(store, plan, cells[place], 0.125)

    async def doing(pilot, screen):
        await pilot.press("end", *["right"] * 9)
        await settle(pilot)
        assert screen.grid.current.run_id == cells[-1].run_id(STAMP)
        assert "0.125" in screen.grid.render_line(screen.grid.size.height - 1).text  # beside its arm, which stays
        assert screen.grid.render_line(screen.grid.size.height - 1).text.startswith(" sam ")
        await pilot.press("home", *["left"] * 9)
        await settle(pilot)
        assert "0.125" in screen.grid.render_line(1).text

    opened((store, plan, started.path), tmp_path, doing, size=(80, 24))


def test_a_search_shows_its_trials_in_order_and_the_best_so_far(tmp_path):
    store = RunStore(tmp_path / "runs")
    wide = StudyAxis("meta.learning_rate", low=1e-4, high=1e-1)
    plan = study(seeds=(0,), arms=(arm("plain"), arm("sam", wide, penalty={"sam": {}})), search=Search(trials=4))
    started = job(store.root, plan)
    points = [{"meta.learning_rate": rate} for rate in (0.01, 0.02, 0.03)]
    (started.path / "trials.json").write_text(json.dumps({"sam": points[:2]}))
    cells = list(plan.cells_of(plan.arms[1], points))
    for cell, value in zip(cells[:2], (0.4, 0.5), strict=True):
        do(store, plan, cell, value)

    async def doing(pilot, screen):
        await pilot.press("end")
        assert [line.split("|")[3] for line in lines(screen)[2:4]] == ["0.4000", "0.4000"]
        assert "#1 0.01" in lines(screen)[2] and "☆" in lines(screen)[2]
        (started.path / "trials.json").write_text(json.dumps({"sam": points}))
        do(store, plan, cells[2], 0.3)
        await look(pilot, screen)
        assert lines(screen)[4].split("|")[3] == "0.3000" and "☆" in lines(screen)[4]
        assert screen.grid.current.run_id == cells[1].run_id(STAMP)  # where it was

    opened((store, plan, started.path), tmp_path, doing)


def test_the_log_the_report_and_the_transfers_of_an_arm(tmp_path):
    store, plan = RunStore(tmp_path / "runs"), study(transfer=transfers(of="all"))
    started = job(store.root, plan)
    (started.path / "log.txt").write_text("the study began\n")
    for cell in plan.grid()[:2]:
        run = do(store, plan, cell)
        (run.path / "checkpoint" / "best.safetensors").touch()
    for piece in Watcher(plan, started.path).look().transfers:
        TransferJob.start(store.root, piece.transfer.plan(), run_id=piece.run.id)

    async def doing(pilot, screen):
        assert screen.check_action("report", ()) is False
        await pilot.press("L")
        await until(pilot, lambda: "the study began" in screen.query_one(LogTail).lines)
        await pilot.press("escape", "t")
        assert isinstance(pilot.app.screen, TransferScreen)  # that of the run under the cursor
        await pilot.press("escape")
        (started.path / "report").mkdir()
        (started.path / "report" / "report.md").write_text(
            f"# Report {EVIL}\n| wide |\n\n![meta-loss](meta-loss.png)\n\nAfter it.\n\n![none](none.png)\n"
        )
        await look(pilot, screen)
        await pilot.press("V")
        assert isinstance(pilot.app.screen, ReportScreen)
        await settle(pilot)
        report = pilot.app.screen
        await until(pilot, lambda: report.query(Chart))
        assert {chart.title.split(" · ")[0] for chart in report.query(Chart)} <= {"meta-loss", "validation loss"}
        assert all(len(line.x) for chart in report.query(Chart) for line in chart.lines)
        assert [str(part.content) for part in report.query("Figure Static").results(Static)] == ["figure none.png"]
        text, after = (part.text for part in report.query(Prose))
        assert after.strip() == "After it."
        assert text.startswith("# Report ") and "[bold]x[/bold]" in text and "\x1b" not in text

    opened((store, plan, started.path), tmp_path, doing)


def test_a_long_report_opens_at_once_and_ends_where_its_text_does(begun, tmp_path):
    rows = "\n".join(f"| {row} | 0.1 | 0.2 |" for row in range(1000))
    (begun[2] / "report").mkdir()
    (begun[2] / "report" / "report.md").write_text(
        f"# Long\n\n| a | b | c |\n|---|---|---|\n{rows}\n\nIts last line.\n"
    )

    async def doing(pilot, screen):
        await look(pilot, screen)
        await pilot.press("V")
        await until(pilot, lambda: pilot.app.screen.query_one(VerticalScroll).max_scroll_y > 900)
        assert len([*pilot.app.screen.walk_children()]) < 20  # not one for each cell: that took half a minute
        await pilot.press("G")
        text = lambda: "".join(strip.text for strip in pilot.app.screen._compositor.render_strips())  # noqa: E731
        await until(pilot, lambda: "Its last line." in text())

    opened(begun, tmp_path, doing)


DAMAGED = {
    "nothing": "{}",
    "torn": '{"name": "x", "stamp"',
    "a list": "[1]",
    "arms that are none": '{"name": "x", "stamp": "", "seeds": [0], "arms": [{"name": [], "preset": [], "axes": []}]}',
}


def test_a_damaged_study_says_so_in_one_line(begun, tmp_path):
    for text in DAMAGED:
        (begun[2] / "study.json").write_text(text)
        problem = WatchedStudy(begun[2]).look().problem
        assert problem.startswith("study.json: ") and "\n" not in problem

    async def doing(pilot, screen):
        assert said(screen, "problem").startswith("study.json: ") and "\n" not in said(screen, "problem")
        assert screen.query_one("#problem").display and not screen.grid.display
        await pilot.press("down", "enter", "space", "c", "t", "V", "asterisk")
        assert pilot.app.screen is screen
        offered = {binding.binding.action for binding in screen.active_bindings.values() if binding.enabled}
        assert not {"open", "mark", "compare", "resume_run"} & offered

    opened(begun, tmp_path, doing)


def change_plan(path: Path, **changes: Any) -> None:
    change_json(path / "study.json", **changes)


def test_hostile_plans_are_told_not_obeyed(begun, tmp_path):
    _, plan, path = begun
    many = [{"key": f"a.b{number}", "values": list(range(1000))} for number in range(5)]
    plans = [
        {"arms": [{"name": "x", "preset": {}, "axes": many}]},
        {"arms": [{"name": "x", "preset": {"meta": 5}, "axes": []}]},
        {"arms": [{"name": {"a": 1}, "preset": {}, "axes": []}]},
        {"arms": [{"name": "x", "preset": {}, "axes": [{"key": 5, "values": [1]}]}]},
        {"arms": [{"name": "x", "preset": {}, "axes": [{"key": "a", "values": 5}]}]},
        {"pick": {"metric": ["x"]}},
        {"seeds": list(range(20_000))},
        {"transfer": {"to": [5]}},
        {"transfer": {"settings": 5}},
        {"search": {"sampler": "tpe", "trials": 10**9, "seed": 0}},
    ]
    for changes in plans:
        change_plan(path, **{**json.loads(plan.dumps()), **changes})
        problem = WatchedStudy(path).look().problem
        assert "\n" not in problem and "(TypeError)" not in problem
    change_plan(path, **{**json.loads(plan.dumps()), **plans[0]})
    assert "allowed: at most 10000" in WatchedStudy(path).look().problem


def test_names_from_strangers_are_plain_text(tmp_path):
    store = RunStore(tmp_path / "runs")
    plan = study(arms=(replace(arm("plain"), name=EVIL),), reference=EVIL)
    started = job(store.root, plan)
    change_json(started.path / "run.json", name=EVIL)

    async def doing(pilot, screen):
        shown = "\n".join([*lines(screen), said(screen, "head"), said(screen, "cell")])
        assert "[bold]x[/bold]" in shown and "\x1b" not in shown and "\u202e" not in shown

    opened((store, plan, started.path), tmp_path, doing)


def test_a_study_that_is_deleted_while_it_is_shown(begun, tmp_path):
    async def doing(pilot, screen):
        for name in ("study.json", "run.json", "status.json"):
            (begun[2] / name).unlink()
        screen._watched = WatchedStudy(begun[2])
        await look(pilot, screen)
        assert said(screen, "problem") and pilot.app.screen is screen

    opened(begun, tmp_path, doing)


# -- the list --------------------------------------------------------------------------------------------------------


def listed(store: RunStore, tmp_path: Path, doing: Any, size: tuple[int, int] = (100, 30)) -> None:
    async def scene(pilot, screen):
        await until(pilot, lambda: all(screen.studies.seen(reader.id) for reader in store.studies()))
        await settle(pilot)
        await doing(pilot, screen)

    show(store, tmp_path, StudiesScreen, scene, size)


def rows_of(screen: StudiesScreen) -> list[list[str]]:
    table = screen.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


def test_the_list_counts_runs_and_opens_a_study(begun, tmp_path):
    store, plan, path = begun
    damaged = job(store.root, replace(plan, name="broken", stamp="20261120-220000"))
    (damaged.path / "study.json").write_text("{}")

    async def doing(pilot, screen):
        broken, tiny = rows_of(screen)
        assert [tiny[place] for place in (0, 1, 3, 4, 5, 8)] == ["tiny", "stopped", "4/6", "1", "0", "1"]
        assert broken[:3] == ["broken", "damaged", ""] and said(screen, "said").count("study.json") == 1
        await pilot.press("down", "enter")
        assert isinstance(pilot.app.screen, StudyScreen) and pilot.app.screen.path == path

    listed(store, tmp_path, doing)


@pytest.mark.parametrize(("width", "last"), [(80, "age"), (90, "to come")])
def test_the_columns_of_the_list_fit_whole(begun, tmp_path, width, last):
    store, plan, _ = begun
    long = job(store.root, replace(plan, name="a-name-as-long-as-they-come", stamp="20261120-220000"))
    long.set_status(state="finished", message="")
    change_json(long.path / "status.json", state="running", eta_s=86_000.0)

    async def doing(pilot, screen):
        table = screen.query_one(DataTable)
        assert str(table.ordered_columns[-1].label) == last
        assert sum(column.get_render_width(table) for column in table.ordered_columns) <= width
        await pilot.press("down")
        await pilot.resize_terminal(170 - width, 24)
        await settle(pilot)
        assert len(rows_of(screen)) == 2 and screen.selected.name == "tiny"
        assert (str(table.ordered_columns[-1].label) == "to come") == (width == 80)

    listed(store, tmp_path, doing, size=(width, 24))


def test_a_store_without_studies_says_how_to_start_one(tmp_path):
    async def doing(pilot, screen):
        assert "a picks one" in said(screen, "instead") and screen.query_one("#instead").display
        await pilot.press("enter", "s", "u", "R", "y")
        assert pilot.app.screen is screen

    listed(RunStore(tmp_path / "runs"), tmp_path, doing, size=(80, 24))


# -- steering and starting -------------------------------------------------------------------------------------------


@pytest.fixture
def hold():
    """Start a process that holds a study and obeys signals as its scheduler does."""
    started = []

    def start(path: Path) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(path)], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_pause_and_stop_reach_the_scheduler_and_stop_asks_first(begun, tmp_path, hold):
    process, reader = hold(begun[2]), RunReader(begun[2])

    async def state(pilot, screen, wanted):
        await until(pilot, lambda: reader.state == wanted)
        await look(pilot, screen)
        assert screen.study.row.state == wanted

    async def doing(pilot, screen):
        await until(pilot, lambda: reader.recorded_status().controllable)
        await state(pilot, screen, "running")
        await pilot.press("u")
        await state(pilot, screen, "paused")
        await pilot.press("u")
        await state(pilot, screen, "running")
        await pilot.press("s")
        assert isinstance(pilot.app.screen, ConfirmScreen) and "all its runs" in pilot.app.screen.heading
        await pilot.press("escape")
        assert reader.state == "running"
        await pilot.press("s", "y")
        await state(pilot, screen, "stopped")

    opened(begun, tmp_path, doing)
    assert process.wait(240) == 0


def over(tmp_path: Path, state: str) -> tuple[RunStore, StudyPlan, Path]:
    """A study whose runs have all finished, though its scheduler has not."""
    store, plan = RunStore(tmp_path / "runs"), study(arms=(arm("plain"),), seeds=(0,))
    started = job(store.root, plan)
    do(store, plan, plan.grid()[0])
    started.set_status(state=state, step=0, total=1, message="")
    return store, plan, started.path


def ended(path: Path) -> bool:
    return RunReader(path).state in ("finished", "failed") and not RunReader(path).is_held


def test_resuming_starts_a_scheduler_that_tries_again_what_failed(tmp_path, forked):
    store, plan, path = over(tmp_path, "stopped")

    async def doing(pilot, screen):
        await pilot.press("R")
        await until(pilot, lambda: ended(path), limit_s=240)
        await look(pilot, screen)
        assert screen.study.row.state == "finished", RunReader(path).log_path.read_text()
        assert Schedule.of(path).retry_failed and Schedule.of(path).jobs == 2

    opened((store, plan, path), tmp_path, doing)


STUDY = """
name = "mine"
description = "one arm of one run"
seeds = 1
preset = "quickstart"
[[arm]]
name = "only"
[pick]
"""


def test_a_study_file_is_weighed_named_and_started(tmp_path, monkeypatch, forked):
    """Its one run has finished before, so that its scheduler has nothing to do but the report."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(STUDY)
    store = RunStore(tmp_path / "runs")
    plan = load_study("mine.toml", ['name="other"'], STAMP)
    started = StudyJob.start(store.root, plan)
    do(store, plan, plan.grid()[0])
    started.set_status(state="stopped", message="")

    async def doing(pilot, screen):
        await pilot.press("a")
        picking = await until(pilot, lambda: isinstance(pilot.app.screen, PickStudyScreen) and pilot.app.screen)
        assert {"smoke", "paper-lr"} <= {offer.name for offer in picking.offers.values() if offer.group == "shipped"}
        await pilot.press(*"mine")
        await until(pilot, lambda: "1 run (" in said(picking, "size") and "arms: only" in said(picking, "size"))
        await pilot.press("enter")
        asking = await until(pilot, lambda: isinstance(pilot.app.screen, LaunchingScreen) and pilot.app.screen)
        asking.query_one("#name", Input).value = "other"
        asking.query_one("#jobs", Input).value = "many"
        await pilot.press("enter")
        assert "jobs: found many; allowed" in said(asking, "message") and pilot.app.screen is asking
        asking.query_one("#jobs", Input).value = "3"
        await calm(pilot)
        await pilot.press("enter")
        shown = await until(pilot, lambda: isinstance(pilot.app.screen, StudyScreen) and pilot.app.screen, 60)
        assert shown.path == started.path and Schedule.of(started.path).jobs == 3
        told = f"going on with {started.id}"
        await until(pilot, lambda: told in [note.message for note in pilot.app._notifications])
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(RunReader(started.path).status().pid, signal.SIGKILL)  # its report would take a while

    listed(store, tmp_path, doing)


def test_a_study_that_has_finished_is_not_done_again_unasked(tmp_path, monkeypatch):
    """As on the command line: its runs may have taken days."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(STUDY)
    store = RunStore(tmp_path / "runs")
    done = StudyJob.start(store.root, load_study("mine.toml", ['name="other"'], STAMP))
    done.set_status(state="finished", message="")
    with pytest.raises(RunError, match=f"{done.id} has finished.*another name begins anew"):
        start("mine.toml", store, "other", 0, None)
    assert [reader.id for reader in store.studies()] == [done.id]


def test_what_is_wrong_with_a_study_file_is_told_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(f'seeds = 1\ndescription = {json.dumps(EVIL)}\n[[arm]]\nname = "a"\npreset = "lol"\n')
    store = RunStore(tmp_path / "runs")

    async def doing(pilot, screen):
        await pilot.press("a")
        picking = await until(pilot, lambda: isinstance(pilot.app.screen, PickStudyScreen) and pilot.app.screen)
        await pilot.press(*"bad.toml")
        await until(pilot, lambda: 'found "lol"' in said(picking, "size"))
        await pilot.press("enter", "enter")
        asking = pilot.app.screen
        await until(pilot, lambda: 'found "lol"' in said(asking, "message"))
        assert asking.query_one("#message").has_class("-wrong") and not store.studies()
        await pilot.press("escape")
        assert pilot.app.screen is screen

    listed(store, tmp_path, doing)


def test_how_long_a_study_may_take_is_told_by_runs_of_its_kind(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(STUDY)
    store = begun[0]
    assert size_of("mine.toml", ()).estimate == "no finished run to estimate from"
    preset = load_preset("quickstart")
    made = store.create(preset)
    made.set_status(state="finished", latest={"inner_steps_per_s": 10.0})
    feed = Feed(store, lambda *news: None)
    feed.look()
    steps = preset["meta"]["epochs"] * preset["meta"]["inner_steps"] * preset["meta"]["meta_batch"]
    assert size_of("mine.toml", feed.rows).seconds == pytest.approx(steps / 10.0)

    es = ("meta.estimator=es", "meta.pairs=3", "objective.terms.sharpness.radius=0.2")
    Path("es.toml").write_text(
        STUDY + '[set]\n"meta.estimator" = "es"\n"meta.pairs" = 3\nobjective.terms.sharpness.radius = 0.2\n'
    )
    assert size_of("es.toml", feed.rows).seconds is None, "that says nothing of another estimator"
    store.create(load_preset("quickstart", es)).set_status(state="finished", latest={"inner_steps_per_s": 10.0})
    feed.look()
    assert {row.estimator: row.penalties for row in feed.rows}["es"][-1] == "sharpness"
    assert size_of("es.toml", feed.rows).seconds == pytest.approx(6 * steps / 10.0), "of each pair both are trained"
