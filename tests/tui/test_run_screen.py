"""The screen of one run: what it shows of whole, dead, damaged and hostile run folders, and the keys of its tabs."""

from __future__ import annotations

import json
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui import driving, hosting

from engine.jobs import spawn
from engine.presets import catalog
from engine.presets.preset import from_mapping
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.presets.preset_editor import PresetEditorScreen
from lreg_tui.runs.metric_panel import MetricGrid, ordered
from lreg_tui.runs.run_notice import RunNotice
from lreg_tui.runs.run_screen import PresetText, RunScreen
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.log_tail import LogTail
from lreg_tui.widgets.page_tabs import PageTabs
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.toml_area import TomlArea

METRICS = ("meta_loss", "test_accuracy", "sharpness", "update_norm", "skipped", "sam_penalty", "memory_bytes")


@pytest.fixture(scope="module", autouse=True)
def _catalog() -> None:
    catalog.load()


def evaluation(label: str, accuracy: float, dataset: str = "fmnist") -> dict[str, Any]:
    marks = [
        {
            "inner_step": step,
            "train_loss": 1 / step,
            "test_loss": 2 / step,
            "test_accuracy": accuracy,
            "sharpness": {"0.05": 0.01},
        }
        for step in (50, 100)
    ]
    seeds = [{"seed": seed, "diverged": False, "marks": marks} for seed in (0, 1)]
    return {"label": label, "optimizer": "simple", "task": {"dataset": dataset, "optimizee": "mlp"}, "seeds": seeds}


class Shown:
    """The run's screen, and its keys."""

    def __init__(self, pilot: Pilot[Any]) -> None:
        self.pilot = pilot
        self.app: Any = pilot.app

    @property
    def screen(self) -> RunScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, RunScreen))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Any) -> Any:
        return await driving.until(self.pilot, condition)

    def text(self, selector: str) -> str:
        return str(self.screen.query_one(selector, Static).content)

    @property
    def tabs(self) -> str:
        return self.screen.query_one(PageTabs).text

    @property
    def metrics(self) -> list[str]:
        return [panel.metric for panel in self.screen.query_one(MetricGrid).all if panel.display]


@asynccontextmanager
async def showing(run: Run, folder: Path, size: tuple[int, int] = (80, 24)) -> Any:
    app = hosting.Host(RunStore(run.path.parent), folder)
    async with app.run_test(size=size) as pilot:
        shown = Shown(pilot)
        await shown.until(lambda: app.feed.rows)
        app.open_run(run.id)
        await shown.until(lambda: app.screen.query(PageTabs))
        await shown.until(lambda: shown.screen.files is not None)
        yield shown


def test_head_says_who_and_how_far(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", "mine", state="running", step=5, total=20, tags=["paper"])

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            head = shown.text("#head")
            for part in ("mine", "running", "25%", "meta-step  5/20", made.id, "digits/mlp", "seed 0", "#paper"):
                assert part in head
            made.set_status(step=10)
            shown.app.feed.look_now()
            await shown.until(lambda: "meta-step 10/20" in shown.text("#head"))

    driving.run(go())


def test_every_metric_has_a_panel_page_by_page_and_alone(tmp_path: Path) -> None:
    records = [{"step": step, **dict.fromkeys(METRICS, 1.0 + step)} for step in range(5)]
    made = driving.make_run(tmp_path / "runs", records=records)
    order = ordered(METRICS)
    parts = ordered([*METRICS, "meta_objective", "objective_sharpness", "sam_penalty_share"])
    assert parts[3:7] == ["meta_objective", "objective_sharpness", "sam_penalty", "sam_penalty_share"]
    assert order[:4] == ["meta_loss", "test_accuracy", "sharpness", "sam_penalty"] and order[-1] == "skipped"

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            await shown.until(lambda: shown.screen.query_one(MetricGrid).names)
            await driving.settle(shown.pilot)
            first = shown.metrics
            assert first == order[: len(first)] and "1/" in shown.tabs
            seen = list(first)
            while len(seen) < len(order):
                await shown.press("right_square_bracket")
                seen += shown.metrics
            assert seen == order
            await shown.press("right_square_bracket", "tab", "z")
            assert shown.metrics == [order[0]]
            await shown.press("escape")
            assert shown.metrics == first and isinstance(shown.app.screen, RunScreen)

    driving.run(go())


def test_the_number_of_pages_is_right_after_another_tab_and_another_size(tmp_path: Path) -> None:
    records = [{"step": step, **dict.fromkeys(METRICS, 1.0 + step)} for step in range(5)]
    made = driving.make_run(tmp_path / "runs", records=records)

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            pages = lambda count: shown.until(lambda: f"curves 1/{count}" in shown.tabs)  # noqa: E731
            await pages(2)
            await shown.press("2")
            await driving.settle(shown.pilot)
            await shown.press("1")
            await pages(2)
            await shown.press("3")
            await shown.pilot.resize_terminal(60, 20)
            await shown.press("1")
            await pages(7)
            await shown.pilot.resize_terminal(80, 24)
            await pages(2)
            await shown.press("z", "2", "1")
            await pages(7)
            await shown.pilot.resize_terminal(200, 60)
            await shown.press("escape")
            await shown.until(lambda: shown.metrics == ordered(METRICS) and "/" not in shown.tabs)

    driving.run(go())


def test_new_records_reach_the_curves(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", state="running", records=[{"step": 0, "meta_loss": 1.0}])

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            grid = shown.screen.query_one(MetricGrid)
            await shown.until(lambda: grid.names == ["meta_loss"])
            made.append([{"step": 1, "meta_loss": 0.5, "sharpness": 0.1}])
            shown.app.feed.look_now()
            await shown.until(lambda: shown.metrics == ["meta_loss", "sharpness"])
            await shown.until(lambda: list(grid.all[0].chart.lines[0].y) == [1.0, 0.5])

    driving.run(go())


def test_curves_that_another_screen_had_read_are_there_at_once(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", records=[{"step": 0, "meta_loss": 1.0}])

    async def go() -> None:
        app = hosting.Host(RunStore(tmp_path / "runs"), tmp_path)
        async with app.run_test() as pilot:
            shown = Shown(pilot)
            app.feed.follow({made.id: made.path})
            await shown.until(lambda: app.feed.metrics(made.id) and app.feed.rows)
            await driving.settle(pilot)
            app.open_run(made.id)
            await shown.until(lambda: app.screen.query(PageTabs))
            await shown.until(lambda: shown.metrics == ["meta_loss"] and shown.screen.query_one(MetricGrid).names)
            await shown.until(lambda: shown.screen.query_one(MetricGrid).all[0].chart.lines)

    driving.run(go())


def test_preset_is_shown_and_edited_as_a_new_one(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", "mine", penalty={"sam": {"rho": 0.25}})

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            await shown.press("2")
            area = shown.screen.query_one("#preset", TomlArea)
            await shown.until(lambda: "rho = 0.25" in area.text)
            before = area.text
            await shown.press("x", "delete")
            assert area.text == before and not shown.screen.query_one("#preset-problem").display
            await shown.press("e")
            await shown.until(lambda: isinstance(shown.app.screen, PresetEditorScreen))
            editor = shown.app.screen
            await shown.until(lambda: editor.checked is not None)
            assert editor.checked.preset.values == RunReader(made.path).preset().values
            assert editor.draft is not None and editor.draft.file is None  # the run's own is not written over

    driving.run(go())


def test_log_is_searched(tmp_path: Path) -> None:
    log = "".join(f"line {number} {'nan' if number % 50 == 3 else 'fine'}\n" for number in range(200))
    made = driving.make_run(tmp_path / "runs", log=log)

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            await shown.press("slash")
            await shown.until(lambda: isinstance(shown.app.screen, PromptScreen))
            tail = shown.screen.query_one(LogTail)
            await shown.until(lambda: len(tail.lines) == 200)
            shown.app.screen.query_one(Input).value = "NaN"
            await shown.press("enter")
            await shown.until(lambda: shown.app.screen is shown.screen)
            assert shown.screen.tab == "log" and tail.searched == "NaN"
            assert any("4 lines" in note.message for note in shown.app._notifications)

    driving.run(go())


def test_preset_is_searched_where_it_is_shown(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", "mine", penalty={"sam": {"rho": 0.25}, "gsam": {"rho": 0.5}})

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            await shown.press("2")
            area = shown.screen.query_one(PresetText)
            await shown.until(lambda: "rho = 0.25" in area.text)
            await shown.press("slash")
            await shown.until(lambda: isinstance(shown.app.screen, PromptScreen))
            shown.app.screen.query_one(Input).value = "RHO ="
            await shown.press("enter")
            await shown.until(lambda: shown.app.screen is shown.screen)
            lines = area.text.splitlines()
            places = [number for number, line in enumerate(lines) if "rho =" in line]
            assert shown.screen.tab == "preset" and len(places) == 2 and area.selected_text == "rho ="
            seen = [area.selection.start[0]]
            for key in ("n", "n", "N"):
                await shown.press(key)
                seen.append(area.selection.start[0])
            assert seen == [places[0], places[1], places[0], places[1]]
            assert any("2 lines" in note.message for note in shown.app._notifications)

    driving.run(go())


def test_checkpoints_are_listed_with_step_and_size(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs")
    (made.path / "checkpoint" / "best.safetensors").write_bytes(b"x" * 4096)
    (made.path / "checkpoint" / "best.json").write_text('{"step": 274}')
    (made.path / "checkpoint" / "last.safetensors").write_bytes(b"")
    (made.path / "checkpoint" / "last.json").write_text('{"trainer": {"step": [1]}')

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            await shown.press("4")
            text = shown.screen.query_one(SheetView).text
            best = next(line for line in text.splitlines() if line.startswith("best"))
            assert best.split()[:4] == ["best", "274", "4.0", "KiB"]
            assert any(line.split()[:2] == ["last", "–"] for line in text.splitlines())

    driving.run(go())


def test_transfers_are_told_by_task_and_with_all_their_marks(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs")
    made.write_transfer("best-fmnist", evaluation("simple (best)", 0.75))
    made.write_transfer("best-mnist", evaluation("[red]hostile[/]\x1b[31m", 0.5, "mnist"))
    (made.path / "transfer" / "torn.json").write_text('{"seeds": [{"marks": [')

    async def go() -> None:
        async with showing(made, tmp_path, (120, 40)) as shown:
            await shown.press("5")
            sheets = shown.screen.query_one("#tab-transfers", SheetView)
            await shown.until(lambda: "mnist/mlp" in sheets.text)
            for words in ("fmnist/mlp", "75.0 ± 0.0%", "[red]hostile[/]\N{REPLACEMENT CHARACTER}[31m"):
                assert words in sheets.text
            for task in ("fmnist/mlp", "mnist/mlp"):  # at every mark
                lines = sheets.text.split(f"{task}, all marks")[1].splitlines()[1:8]
                assert {"50", "100"} <= {word for line in lines for word in line.split()}
            made.write_transfer("best-cifar", evaluation("simple (best)", 0.25, "cifar10"))
            (made.path / "notes.json").write_text('{"name": "renamed"}')  # a change that the feed tells
            shown.app.feed.look_now()
            await shown.until(lambda: "cifar10/mlp" in sheets.text)

    driving.run(go())


def test_a_crashed_run_says_why_first_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunReader] = []
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **_: started.append(reader))
    made = driving.make_run(tmp_path / "runs", state="crashed", step=7, total=20, log="loading\nout of memory\n")

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            notice = shown.screen.query_one(RunNotice)
            await shown.until(lambda: "out of memory" in str(notice.content))
            assert "crashed at meta-step 7 of 20" in str(notice.content)
            assert notice.region.y < shown.screen.query_one(PageTabs).region.y
            await shown.press("R")
            await shown.until(lambda: started)
            assert started[0].path == made.path

    driving.run(go())


def test_a_damaged_run_is_shown_as_such(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", records=[])
    (made.path / "preset.toml").write_text("[meta]\nepochs = 'x'\n\x1b]0;evil\x07")
    (made.path / "log.txt").unlink(missing_ok=True)
    shutil.rmtree(made.path / "checkpoint")
    (made.path / "transfer").write_text("a file in place of a folder")

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            assert shown.screen.query_one("#no-metrics").display
            for key in "2345":
                await shown.press(key)
                assert "\x1b]0" not in shown.app.export_screenshot()
            await shown.until(lambda: "no valid TOML" in shown.text("#preset-problem"))
            await shown.until(lambda: "no transfer" in shown.screen.query_one("#tab-transfers", SheetView).text)

    driving.run(go())


def test_a_run_that_goes_away_stays_in_view_as_gone(tmp_path: Path) -> None:
    driving.make_run(tmp_path / "runs", "other")
    made = driving.make_run(tmp_path / "runs", "mine")

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            shutil.rmtree(made.path)
            shown.app.feed.look_now()
            await shown.until(lambda: "its folder is gone" in shown.text("#head"))
            await shown.press("1", "2", "3", "4", "5", "escape")
            await shown.until(lambda: not isinstance(shown.app.screen, RunScreen))

    driving.run(go())


def test_a_transfer_job_shows_its_plan(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", "mine")
    job = driving.make_job(tmp_path / "runs", [made])

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            shown.app.pop_screen()
            shown.app.push_screen(RunScreen(job.id))
            await shown.until(lambda: shown.app.screen.query(PageTabs))
            await shown.press("2")
            area = shown.screen.query_one("#preset", TomlArea)
            await shown.until(lambda: area.text)
            assert json.loads(area.text)["runs"] == [str(made.path)]
            assert shown.screen.check_action("edit", ()) is False

    driving.run(go())


def test_hostile_names_are_plain(tmp_path: Path) -> None:
    made = driving.make_run(tmp_path / "runs", "fine")
    driving.change_json(made.path / "status.json", message="[bold]\x1b[2J[/bold]", device="\x1b[31m[red]")
    (made.path / "notes.json").write_text(json.dumps({"name": "[blink]x\x1b[5m\u202e", "tags": ["[/]"]}))

    async def go() -> None:
        async with showing(made, tmp_path) as shown:
            head = shown.text("#head")
            assert "[blink]x" in head and "#[/]" in head
            assert not any(mark in head for mark in ("\x1b", "\u202e"))
            assert "\x1b" not in str(shown.screen.query_one(RunNotice).content)
            await shown.press("1", "2", "3", "4", "5")

    driving.run(go())


def with_checkpoint(tmp_path: Path) -> Run:
    """A run of a few short unrolls whose learned optimizer is as it was drawn."""
    import torch

    from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
    from engine.runs import checkpoint

    tables = {
        "task": {"dataset": "digits", "hidden": [2], "batch_size": 16},
        "optimizer": {"kind": "simple"},
        "meta": {"inner_steps": 4, "truncation": 2},
        "penalty": {"gsam": {}},
    }
    made = Run.create(tmp_path / "runs", from_mapping({"name": "small", **tables}))
    phi = LEARNED_OPTIMIZERS.create("simple").init_phi(torch.Generator().manual_seed(0))
    checkpoint.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    return made


def test_a_diagnosis_is_made_by_a_process_and_shown(tmp_path: Path, forked: None) -> None:
    made = with_checkpoint(tmp_path)

    async def go() -> None:
        async with showing(made, tmp_path, (120, 40)) as shown:
            await shown.press("6")
            await shown.until(lambda: "no diagnosis yet" in shown.screen.query_one("#diagnosis-sheets", SheetView).text)
            await shown.press("enter")
            await shown.until(lambda: "Diagnosing" in shown.text("#diagnosis-words"))
            await driving.until(shown.pilot, lambda: list(made.path.glob("diagnosis-best-*.json")), 120)
            sheets = shown.screen.query_one("#diagnosis-sheets", SheetView)
            await shown.until(lambda: "whole objective" in sheets.text and "gsam, inner steps 2-4" in sheets.text)
            await shown.until(lambda: "diagnosis 1" in shown.tabs)

    driving.run(go())


def test_what_cannot_be_diagnosed_is_said_and_giving_up_leaves_nothing(tmp_path: Path, forked: None) -> None:
    made = with_checkpoint(tmp_path)

    async def go() -> None:
        async with showing(made, tmp_path, (120, 40)) as shown:
            await shown.press("6", "enter")
            await shown.until(lambda: "Diagnosing" in shown.text("#diagnosis-words"))
            await shown.press("backspace")
            await shown.until(lambda: "enter compares" in shown.text("#diagnosis-words"))
            assert not list(made.path.glob("*diagnosis-*"))
            (made.path / "checkpoint" / "best.safetensors").unlink()
            await shown.press("enter")
            await driving.until(shown.pilot, lambda: "no such checkpoint" in shown.text("#diagnosis-words"), 120)

    driving.run(go())
