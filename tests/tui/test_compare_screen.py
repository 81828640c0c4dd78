"""The compare screen: what is marked, what a key changes, what is copied and saved, and landscapes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from comparing import RADII, baseline, evaluation, make_run, mark
from textual.widgets import Input, Static, Tab
from tui.driving import change_json, settle, until
from tui.showing import show

from engine.base.files import write_atomic
from engine.jobs import landscape_worker
from engine.jobs.landscape_worker import SliceSettings
from engine.runs.store import Run, RunStore
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.heat_map import HeatMap
from lreg_tui.compare import comparison_sheets
from lreg_tui.compare.compare_screen import TABS, CompareScreen
from lreg_tui.compare.panes import LEARNING, CurvesPane
from lreg_tui.runs import actions
from lreg_tui.runs.metric_panel import MetricPanel
from lreg_tui.system import launch
from lreg_tui.widgets.pick_list import PickList
from lreg_tui.widgets.sheet_view import SheetView

EVIL = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\u202e"
SAM = {"penalty": {"sam": {"weight": 2.0}}}


def law(factor: float, scale: float = 1.0) -> Any:
    """Sharpness is `factor` times the squared train loss, which falls as a power of the inner steps."""

    def figures(seed: int, step: int) -> dict[str, Any]:
        loss = 2 * (scale * step) ** -0.5 * (1 + 0.01 * seed)
        return dict(mark(loss, factor * loss**2))

    return figures


@pytest.fixture
def pair(tmp_path):
    """A vanilla run (flatter: never) and one with a penalty, half as sharp at equal loss, on fmnist/mlp."""
    vanilla, sam = make_run(tmp_path, "a-lo"), make_run(tmp_path, "b-sam", **SAM)
    for scale in (0.5, 1, 2):
        vanilla.write_transfer(
            f"x{scale}", evaluation(law(3.0, scale), steps=(10, 50, 100), scale=scale, seeds=range(5))
        )
    sam.write_transfer("best", evaluation(law(1.5), steps=(10, 50, 100), seeds=range(5)))
    sam.write_transfer("sgd", baseline(law(2.0), steps=(50, 100), seeds=range(5)))
    vanilla.append([{"step": step, "meta_loss": 1.0 / (1 + step)} for step in range(5)])
    sam.append([{"step": step, "meta_loss": 2.0 / (1 + step), "test_accuracy": 0.5} for step in range(5)])
    for made in (vanilla, sam):
        made._close_metrics()
    return [vanilla, sam]


def shown(runs: list[Run], folder: Path, doing: Any, tab: str = "results", size: tuple[int, int] = (160, 50)) -> None:
    """Open the screen on a tab and do something with it: `doing(pilot, screen)`."""

    async def opened(pilot: Any, screen: CompareScreen) -> None:
        await until(pilot, lambda: screen.result is not None or screen.problem)
        await turn_to(pilot, screen, tab)
        await doing(pilot, screen)

    show(RunStore(runs[0].path.parent), folder, lambda: CompareScreen([made.id for made in runs]), opened, size)


async def turn_to(pilot: Any, screen: CompareScreen, tab: str) -> None:
    """Open a tab, and wait until it shows something."""
    await pilot.press(str(TABS.index(tab) + 1))
    for view in screen.query(f"#tab-{tab}").results(SheetView):
        await until(pilot, lambda view=view: view.text)
    await settle(pilot)


def words(screen: CompareScreen) -> str:
    """The text of the tab in sight."""
    return screen.query_one(f"#tab-{screen.tab}", SheetView).text


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


async def pick(pilot: Any, key: str, typed: str) -> None:
    """Open a list with a key and take what is typed."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, PickList))
    await pilot.press(*typed, "enter")
    await settle(pilot)


# -- tables ------------------------------------------------------------------------------------------------


def test_the_best_of_every_column_is_marked(pair, tmp_path):
    async def doing(pilot, screen):
        text = words(screen)
        marked = [
            line.split()[0] + (line.split()[1] if "×" in line else "")
            for line in text.splitlines()
            if "★" in line and "best mean" not in line
        ]
        assert "★ best mean; 4 says what is clear" in text
        # the smallest loss is that of doubled updates; with it they are as sharp as b-sam but for rounding
        assert marked in (["a-lo×2"], ["b-sam", "a-lo×2"])
        best = line_of(text, "a-lo ×2")
        assert best.count("★") >= 3 and "fmnist/mlp after 100 inner steps" in text

    shown(pair, tmp_path, doing, size=(200, 50))


def test_another_reference_turns_the_verdicts_round(pair, tmp_path):
    async def doing(pilot, screen):
        text = words(screen)
        assert "b-sam against a-lo, fmnist/mlp after 100 inner steps" in text
        assert "✓ 0.500 lower" in line_of(text, "sharpness at 0.1 ratio") and "✗" not in text.split("✓ better")[0]
        await pick(pilot, "b", "b-sam")
        text = words(screen)
        assert "a-lo against b-sam" in text and "✗ 2.00 higher" in line_of(text, "sharpness at 0.1 ratio")
        assert "(reference)" in str(screen.query_one("#compare-title").render()).partition("b-sam")[2]

    shown(pair, tmp_path, doing, "differences")


def test_task_step_and_radius_are_chosen_by_keys(pair, tmp_path):
    other = {"dataset": "mnist", "optimizee": "cnn", "batch_size": 128}
    for made in pair:
        made.write_transfer("other", evaluation(law(1.0), steps=(50,), task=other))

    async def doing(pilot, screen):
        assert "fmnist/mlp after" in words(screen) and "mnist/cnn after 50 inner" in words(screen)
        assert "at 0.1" in words(screen) and "at 0.01" not in words(screen)
        await pilot.press("left_square_bracket")
        await settle(pilot)
        assert "at 0.01" in words(screen) and "radius 0.01 of 0.01, 0.1" in where(screen)
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert "radius 0.01" in where(screen), "there is no smaller one"
        await pick(pilot, "d", "fmnist")
        assert "mnist/cnn" not in words(screen) and "at 0.01" in words(screen), "the radius stays"
        await pick(pilot, "i", "10")
        assert "fmnist/mlp after 10 inner steps" in words(screen)
        await pick(pilot, "d", "every")
        assert "mnist/cnn" in words(screen)

    shown(pair, tmp_path, doing)


def where(screen: CompareScreen) -> str:
    return str(screen.query_one("#compare-where").render())


def test_settings_that_are_equal_are_folded(pair, tmp_path):
    async def doing(pilot, screen):
        text = words(screen)
        assert (
            "2.0" in line_of(text, "penalty.sam.weight") and "meta.epochs" not in text and "settings are equal" in text
        )
        await pilot.press("equals_sign")
        await settle(pilot)
        text = words(screen)
        assert "meta.epochs" in text and "≠ penalty.sam.weight" in text and "≠ meta.epochs" not in text
        await pilot.press("equals_sign")
        await settle(pilot)
        assert "meta.epochs" not in words(screen)
        (sheet,) = screen.shown_sheets()  # what differs from the reference stands out
        (entries,) = [entries for key, entries in sheet.rows if key == "penalty.sam.weight"]
        assert [bool(entry.style) for entry in entries] == [False, True]

    shown(pair, tmp_path, doing, "settings")


def test_new_transfer_files_appear_by_themselves(pair, tmp_path):
    async def doing(pilot, screen):
        before = words(screen)
        assert "adam" not in before
        pair[0].write_transfer("adam", baseline(law(2.5), name="adam", steps=(50, 100)))
        pair[0].set_status(message="something has changed in the store")
        pilot.app.feed.look()
        await until(pilot, lambda: "adam" in words(screen))

    shown(pair, tmp_path, doing)


def test_hostile_names_are_plain_and_damaged_files_are_counted(tmp_path):
    runs = [make_run(tmp_path, "lo"), make_run(tmp_path, "evil", **SAM)]
    change_json(runs[1].path / "run.json", name=EVIL)
    for made in runs:
        made.write_transfer("best", evaluation(law(1.0)))
    (runs[0].path / "transfer" / "torn.json").write_text('{"run": "x", "seeds": [')
    (runs[1].path / "preset.toml").write_text(f'name = "{EVIL}\n')

    async def doing(pilot, screen):
        for tab in TABS[1:4]:
            await turn_to(pilot, screen, tab)
            assert not {"\x1b", "\x07", "\u202e"} & set(words(screen))
        assert "1 damaged transfer file is left out" in words(screen)
        title = str(screen.query_one("#compare-title").render())
        assert "[bold]red[/bold]" in title and "\x1b" not in title

    shown(runs, tmp_path, doing)


def test_without_transfers_it_says_so_and_offers_some(tmp_path, monkeypatch):
    runs = [make_run(tmp_path, "a-lo"), make_run(tmp_path, "b-sam", **SAM)]

    async def doing(pilot, screen):
        asked: list[list[str]] = []
        monkeypatch.setattr(pilot.app, "open_transfer", asked.append)
        assert "No transfer evaluations of these runs yet" in where(screen)
        assert "meta-training" in words(screen), "what is known is shown"
        await pilot.press("t")
        assert asked == [[made.id for made in runs]]
        footer = {
            binding.key: binding.description for _, binding, *_ in screen.active_bindings.values() if binding.show
        }
        assert footer["t"] == "transfer"

    shown(runs, tmp_path, doing)


def test_one_arm_says_that_there_is_nothing_to_tell_apart(tmp_path):
    runs = [make_run(tmp_path, "lo", seed=seed) for seed in (0, 1)]
    for made in runs:
        made.write_transfer("best", evaluation(law(1.0)))

    async def doing(pilot, screen):
        assert "differ in nothing but their seed" in words(screen)
        await turn_to(pilot, screen, "results")
        assert "lo (seed 1)" in words(screen) and "3 x 2" in line_of(words(screen), "lo ")

    shown(runs, tmp_path, doing, "differences")


@pytest.mark.parametrize(("seeds", "expected"), [((0, 1), "(2 seeds)"), ((0, 0), "(2 runs)")])
def test_runs_that_repeat_a_seed_are_not_called_seeds(tmp_path, seeds, expected):
    runs = [make_run(tmp_path, f"lo-{number}", seed=seed) for number, seed in enumerate(seeds)]

    async def doing(pilot, screen):
        assert expected in str(screen.query_one("#compare-title", Static).content)

    shown(runs, tmp_path, doing, "curves")


def test_a_run_without_results_is_told_and_is_no_reference_by_itself(pair, tmp_path):
    lacking = make_run(tmp_path, "long", description="without a penalty, and marked first", meta={"epochs": 7})

    async def doing(pilot, screen):
        assert screen.result.comparison.reference.label == "a-lo" and "b-sam against a-lo" in words(screen)
        for tab in ("results", "differences", "sharpness"):
            await turn_to(pilot, screen, tab)
            assert "long: no evaluation yet, t starts one" in where(screen), tab
        await turn_to(pilot, screen, "differences")
        await pick(pilot, "b", "long")
        assert words(screen) == "long has no evaluation yet: b picks another reference, t starts one."

    shown([lacking, *pair], tmp_path, doing, "differences")


def test_a_lone_evaluated_run_is_not_called_one_arm(tmp_path):
    runs = [make_run(tmp_path, "a-lo"), make_run(tmp_path, "b-sam", **SAM)]
    runs[1].write_transfer("best", evaluation(law(1.0)))

    async def doing(pilot, screen):
        assert words(screen) == "Only b-sam has an evaluation yet: t starts one of a-lo."

    shown(runs, tmp_path, doing, "differences")


def test_a_run_keeps_its_marker_and_colour_whatever_the_reference(pair, tmp_path, maps):
    repeat = make_run(tmp_path, "a-lo", seed=1)
    repeat.write_transfer("best", evaluation(law(3.0), steps=(10, 50, 100), seeds=range(5)))
    repeat.append([{"step": step, "meta_loss": 3.0 / (1 + step)} for step in range(1, 7)])
    repeat._close_metrics()
    with_checkpoints(pair)
    for made in pair:
        path = landscape_worker.cache_path(made.path, SliceSettings("fmnist/mlp", 100))
        path.parent.mkdir()
        write_atomic(path, json.dumps(grid(0.5)))

    async def check(pilot, screen):
        title = str(screen.query_one("#compare-title").render()).split()
        assert [word for word in title if word in ("●", "▲", "b-sam", "a-lo")] == ["●", "b-sam", "▲", "a-lo"]
        await turn_to(pilot, screen, "sharpness")
        chart = screen.query_one("#tab-sharpness", Chart)
        assert {line.label: line.colour for line in chart.lines if not line.dim} == {"b-sam": 0, "a-lo": 1}
        await turn_to(pilot, screen, "landscape")
        assert list(maps) == ["● b-sam", "▲ a-lo"]
        await turn_to(pilot, screen, "curves")
        pilot.app.feed.look()
        await settle(pilot)
        chart = screen.query_one(MetricPanel).chart
        assert [(line.label, line.colour) for line in chart.lines] == [("b-sam", 0), ("a-lo", 1)]
        assert (chart.lines[1].x.tolist(), chart.lines[1].y.tolist()) == (
            [1, 2, 3, 4],
            [1.0, 2 / 3, 0.5, 0.4],
        )  # the mean
        assert chart.lines[1].errors[0] == pytest.approx(12.7062 * 0.5)  # t of one degree of freedom, s = 1 / sqrt(2)
        await pilot.press("H", "H")
        assert [line.dim for line in chart.lines] == [True, False]
        await pilot.press("H", "B")
        lines = [(line.label, line.colour, line.dim) for line in chart.lines]
        assert lines == [("b-sam", 0, False), ("a-lo", 1, False), ("a-lo", 2, False)]
        await pilot.press("B")
        await turn_to(pilot, screen, "results")

    async def doing(pilot, screen):
        await check(pilot, screen)
        for reference in ("b-sam", "a-lo"):
            await pick(pilot, "b", reference)
            assert screen.result.comparison.reference.label == reference
            await check(pilot, screen)

    shown([pair[1], pair[0], repeat], tmp_path, doing)


def test_of_one_run_nothing_is_the_best(pair, tmp_path):
    async def doing(pilot, screen):
        assert "a-lo ×2" in words(screen) and "★" not in words(screen)

    shown(pair[:1], tmp_path, doing)


def test_a_rename_reaches_the_comparison(pair, tmp_path):
    async def doing(pilot, screen):
        assert line_of(words(screen), "a-lo ×2")
        actions.rename(pair[0].path, "plain")
        pilot.app.feed.look()
        await until(pilot, lambda: "plain ×2" in words(screen) and "a-lo ×2" not in words(screen))
        assert "● plain" in str(screen.query_one("#compare-title").render())

    shown(pair, tmp_path, doing)


def test_it_opens_where_a_job_has_evaluated(pair, tmp_path):
    other = {"dataset": "mnist", "optimizee": "cnn", "batch_size": 128}
    pair[0].write_transfer("other", evaluation(law(1.0), steps=(50,), task=other))

    async def opened(pilot, screen):
        await until(pilot, lambda: screen.result is not None)
        await until(pilot, lambda: words(screen))
        assert screen.tab == "results" and "fmnist/mlp after 10 inner steps" in words(screen)
        assert "mnist/cnn" not in words(screen)

    ids = [made.id for made in pair]
    there = RunStore(pair[0].path.parent)
    show(there, tmp_path, lambda: CompareScreen(ids, tab="results", task="fmnist/mlp", step=10), opened, (160, 50))

    async def elsewhere(pilot, screen):
        await until(pilot, lambda: screen.result is not None)
        await until(pilot, lambda: words(screen))
        assert "fmnist/mlp after 100 inner steps" in words(screen) and not screen.problem

    show(there, tmp_path, lambda: CompareScreen(ids, tab="results", task="fmnist/mlp", step=77), elsewhere, (160, 50))


def test_a_step_that_is_not_there_any_more_is_told_and_the_comparison_stays(pair, tmp_path):
    async def doing(pilot, screen):
        before = words(screen)
        screen.want(step=77)
        await settle(pilot)
        assert "found 77" in where(screen) and words(screen) == before and screen.request.step is None

    shown(pair, tmp_path, doing)


# -- copied and saved ------------------------------------------------------------------------------------------------


def by_lreg(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    from lreg_tui.cli import app

    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["lreg", *arguments])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert not end.value.code
    return capsys.readouterr().out


def test_saved_forms_are_those_of_the_command_line(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"c.md": "--markdown", "c.csv": "--csv", "c.tex": "--latex", "c.json": "--json"}

    async def doing(pilot, screen):
        await pilot.press("left_square_bracket")  # at another radius than the usual one
        await pick(pilot, "b", "b-sam")
        for name in names:
            await save_as(pilot, name)

    shown(pair, tmp_path, doing)
    paths, reference = [str(made.path) for made in pair], str(pair[1].path)
    for name, option in names.items():
        expected = by_lreg(capsys, monkeypatch, "compare", *paths, "--reference", reference, "--radius", "0.01", option)
        assert (tmp_path / name).read_text() == expected and len(expected) > 300, name


async def save_as(pilot: Any, name: str) -> None:
    """Type a name in place of the one that is offered."""
    await pilot.press("w")
    await until(pilot, lambda: not isinstance(pilot.app.screen, CompareScreen))
    pilot.app.screen.query_one(Input).value = name
    await pilot.press("enter")
    await pilot.pause()
    if isinstance(pilot.app.screen, CompareScreen):
        await settle(pilot)


def test_a_file_that_is_there_is_replaced_only_when_told_to(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.md").write_text("mine")

    async def doing(pilot, screen):
        await save_as(pilot, "c.doc")
        assert not isinstance(pilot.app.screen, CompareScreen), "a form that there is not"
        await pilot.press("escape")
        await save_as(pilot, "c.md")
        await pilot.press("n")
        await settle(pilot)
        assert Path("c.md").read_text() == "mine"
        await save_as(pilot, "c.md")
        await pilot.press("y")
        await settle(pilot)
        assert Path("c.md").read_text() == comparison_sheets.text(screen.result.comparison, "markdown")

    shown(pair, tmp_path, doing)


def test_what_is_in_sight_is_copied_as_markdown(pair, tmp_path):
    async def doing(pilot, screen):
        await pilot.press("y")
        copied = pilot.app.clipboard
        assert copied.startswith("### fmnist/mlp after 100 inner steps") and "| a\\-lo" not in copied
        assert "**" in copied and "settings that differ" not in copied and "★" not in copied
        await pilot.press("1", "y")
        assert pilot.app.clipboard == comparison_sheets.text(screen.result.comparison, "markdown")

    shown(pair, tmp_path, doing)


class Child:
    """A helper that has ended."""

    def __init__(self, code: int) -> None:
        self.poll = self.wait = lambda: code

    def terminate(self) -> None:
        pass


def test_a_figure_is_drawn_by_lreg_plot(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plot(module: str, arguments: list[str], said: Path) -> Child:
        from lreg_tui.cli import app

        assert module == "lreg_tui.cli.app"
        with monkeypatch.context() as patched, said.open("w") as log, contextlib.redirect_stderr(log):
            patched.setattr(sys, "argv", ["lreg", *arguments])
            with pytest.raises(SystemExit) as end:
                app.main()
        return Child(int(end.value.code or 0))

    monkeypatch.setattr(launch, "start_helper", plot)

    async def doing(pilot, screen):
        await pick(pilot, "d", "fmnist")
        await save_as(pilot, "sharpness.svg")
        assert "<svg" in Path("sharpness.svg").read_text()
        screen.result.request.paths[0].joinpath("transfer").rename(tmp_path / "gone")
        screen.result.request.paths[1].joinpath("transfer").rename(tmp_path / "gone too")
        await save_as(pilot, "none.svg")
        messages = [notice.message for notice in pilot.app._notifications]
        assert (
            messages[-1].startswith("--task: found") and "fmnist/mlp" in messages[-1] and not Path("none.svg").exists()
        )

    shown(pair, tmp_path, doing, "sharpness")


# -- charts ------------------------------------------------------------------------------------------------


def test_curves_overlay_the_runs_and_the_metric_is_picked_and_remembered(pair, tmp_path):
    async def doing(pilot, screen):
        pilot.app.feed.look()
        await settle(pilot)
        panel = screen.query_one(MetricPanel)
        assert [line.label for line in panel.chart.lines] == ["a-lo", "b-sam"]
        assert panel.chart.lines[1].y.tolist() == [2.0, 1.0, 2 / 3, 0.5, 0.4]
        beside = screen.query(MetricPanel).last()
        assert beside.metric == "sharpness" and beside.is_on_screen  # there is room for it
        await pilot.press("plus")
        await settle(pilot)
        assert beside.chart.view.x == panel.chart.view.x is not None  # they share zoom
        seen = panel.chart.view.x
        await pick(pilot, "m", "accuracy")
        assert panel.chart.view.x == seen  # which stays, of the same runs
        assert panel.metric == "test_accuracy" and panel.chart.has_focus
        await pick(pilot, "m", "learning")
        assert screen.query_one(CurvesPane).metric == LEARNING and not panel.is_on_screen
        assert pilot.app.remembered.view("compare") == {"tab": "curves", "metric": LEARNING}

    shown(pair, tmp_path, doing, "curves")


def test_every_line_has_a_marker_of_its_own(pair, tmp_path):
    untrained = {"label": "simple (untrained)", "checkpoint": "initial"}
    pair[0].write_transfer("start", evaluation(law(9.0), steps=(10, 50, 100), seeds=range(5), **untrained))

    async def doing(pilot, screen):
        lines = screen.query_one("#tab-sharpness", Chart).lines
        assert [line.label for line in lines if line.dim] == ["untrained", "sgd"]
        assert len({line.colour for line in lines}) == len(lines)

    shown(pair, tmp_path, doing, "sharpness")


def test_sharpness_against_radius_has_a_point_for_each_with_its_interval(pair, tmp_path):
    async def doing(pilot, screen):
        chart = screen.query_one("#tab-sharpness", Chart)
        lines = {line.label: line for line in chart.lines}
        assert list(lines) == ["a-lo", "b-sam", "sgd"] and [line.dim for line in lines.values()] == [False, False, True]
        losses = numpy.array([2 * 100**-0.5 * (1 + 0.01 * seed) for seed in range(5)])
        assert lines["b-sam"].x.tolist() == [float(radius) for radius in RADII]
        numpy.testing.assert_allclose(lines["b-sam"].y, [float(r) * (1.5 * losses**2).mean() for r in RADII])
        assert (lines["b-sam"].errors > 0).all()

    shown(pair, tmp_path, doing, "sharpness")


# -- landscapes ------------------------------------------------------------------------------------------------


def grid(middle: float) -> dict[str, Any]:
    offsets = [-1.0, 0.0, 1.0]
    losses = [[middle + a * a + b * b for a in offsets] for b in offsets]
    losses[0][0] = None  # not finite
    return {"offsets": offsets, "losses": losses, "train_loss": middle, "test_accuracy": 0.9}


@pytest.fixture
def maps(monkeypatch):
    """What heat maps were told to show, by title."""
    told: dict[str, dict[str, Any]] = {}

    def show(self: HeatMap, values: Any, **options: Any) -> None:
        told[options["title"].partition(":")[0]] = {"values": values, **options}

    monkeypatch.setattr(HeatMap, "show", show)
    return told


def with_checkpoints(runs: list[Run]) -> None:
    for index, made in enumerate(runs):
        (made.path / "checkpoint" / "best.safetensors").write_bytes(bytes([index]))


def test_landscapes_that_are_kept_are_shown_in_one_range_of_colours(pair, tmp_path, maps):
    with_checkpoints(pair)
    for made, middle in zip(pair, (0.5, 0.1), strict=True):
        path = landscape_worker.cache_path(made.path, SliceSettings("fmnist/mlp", 100))
        path.parent.mkdir()
        write_atomic(path, json.dumps(grid(middle)))

    async def doing(pilot, screen):
        assert list(maps) == ["● a-lo", "▲ b-sam"] and numpy.isnan(maps["● a-lo"]["values"][0, 0])
        assert [shown["bounds"] for shown in maps.values()] == [(0.1, 2.5)] * 2 and maps["● a-lo"]["log"]
        assert "compute" not in {binding.description for _, binding, *_ in screen.active_bindings.values()}

    shown(pair, tmp_path, doing, "landscape")


def test_landscapes_are_computed_by_a_child_and_shown_as_they_come(pair, tmp_path, maps, monkeypatch):
    with_checkpoints(pair)
    asked: list[Any] = []

    def start(module: str, arguments: list[str], said: Path) -> subprocess.Popen[bytes]:
        asked.append((module, arguments))
        lines = [json.dumps({"event": "computing", "run": str(pair[0].path)})]
        lines += [json.dumps({"event": "landscape", "run": str(pair[0].path), **grid(0.5)})]
        code = (
            f"import sys; print({chr(10).join(lines)!r}, flush=True); sys.exit('error: mnist: the data are not there')"
        )
        with said.open("wb") as log:
            return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=log, stderr=log)

    monkeypatch.setattr(launch, "start_helper", start)

    async def doing(pilot, screen):
        assert "is not computed yet: enter computes it" in str(screen.query_one("#landscape-words").render())
        await pilot.press("enter")
        await settle(pilot)
        paths = [str(made.path) for made in pair]
        assert asked == [("engine.jobs.landscape_worker", ["--task", "fmnist/mlp", "--steps", "100", *paths])]
        assert list(maps) == ["● a-lo"] and len(screen.query(HeatMap)) == 1
        assert "mnist: the data are not there" in str(screen.query_one("#landscape-words").render())

    shown(pair, tmp_path, doing, "landscape")


def test_leaving_ends_the_computation(pair, tmp_path, monkeypatch):
    with_checkpoints(pair)
    children: list[subprocess.Popen[bytes]] = []

    def start(module: str, arguments: list[str], said: Path) -> subprocess.Popen[bytes]:
        said.touch()
        children.append(subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE))
        return children[-1]

    monkeypatch.setattr(launch, "start_helper", start)

    async def doing(pilot, screen):
        await pilot.press("enter")
        await until(pilot, lambda: "Computing" in str(screen.query_one("#landscape-words").render()))
        await pilot.press("escape")
        await until(pilot, lambda: children[0].poll() is not None)

    shown(pair, tmp_path, doing, "landscape")
    children[0].stdin.close()


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"offsets": [0, 1], "losses": [[1, 2], [3, "x"]]}', '{"offsets": "ab"}']
)
def test_a_damaged_landscape_is_computed_again(tmp_path, damage):
    made = make_run(tmp_path, "lo")
    with_checkpoints([made])
    path = landscape_worker.cache_path(made.path, SliceSettings("digits/mlp", 20))
    path.parent.mkdir()
    path.write_text(damage)
    assert landscape_worker.read(made.path, SliceSettings("digits/mlp", 20)) == {}


def test_another_checkpoint_task_or_length_has_another_landscape(tmp_path):
    made = make_run(tmp_path, "lo")
    assert landscape_worker.cache_path(made.path, SliceSettings("digits/mlp", 20)) is None
    found = set()
    for content in (b"1", b"2"):
        (made.path / "checkpoint" / "best.safetensors").write_bytes(content)
        found |= {
            landscape_worker.cache_path(made.path, SliceSettings(*where))
            for where in (("a/b", 1), ("a/c", 1), ("a/b", 2))
        }
    assert len(found) == 6


def test_every_tab_shows_something_at_every_size(pair, tmp_path):
    async def doing(pilot, screen):
        for columns, lines in ((80, 24), (120, 40), (200, 60)):
            await pilot.resize_terminal(columns, lines)
            for tab in TABS:
                await turn_to(pilot, screen, tab)
                assert screen.tab == tab and screen.query_one(f"#tab-{tab}").region.height > lines // 2
                assert "fmnist/mlp · after 100" in where(screen) or tab == "settings"

    shown(pair, tmp_path, doing)


def test_the_tab_in_sight_is_whole_where_there_is_no_room_for_all_and_a_click_goes_to_another(pair, tmp_path):
    async def doing(pilot, screen):
        tabs = list(screen.query(Tab))
        assert [tab.label_text for tab in tabs] == [f"{number} {tab}" for number, tab in enumerate(TABS, 1)]
        await pilot.resize_terminal(60, 20)
        for name, tab in zip(TABS, tabs, strict=True):
            await turn_to(pilot, screen, name)
            await until(pilot, lambda tab=tab: screen.region.contains_region(tab.region))
        await pilot.click(tabs[4])
        await until(pilot, lambda: screen.tab == TABS[4])

    shown(pair, tmp_path, doing)


def test_what_changes_on_a_covered_screen_is_not_sent(pair, tmp_path, monkeypatch):
    async def doing(pilot, screen):
        app, below = pilot.app, pilot.app.screen_stack[-2]
        line = Static("before")
        await below.mount(line)
        await settle(pilot)
        drawn: list[Any] = []
        display = type(app)._display
        monkeypatch.setattr(type(app), "_display", lambda self, *what: (drawn.append(what), display(self, *what)))
        line.update("after")
        await pilot.pause(0.1)
        assert not drawn
        await pilot.resize_terminal(70, 30)
        await pilot.press("escape")
        await settle(pilot)
        assert app.screen is below and below.size == (70, 30) and line.region.width == 70 and drawn

    shown(pair, tmp_path, doing)
