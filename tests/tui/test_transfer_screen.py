"""The transfer screen: what it refuses while one types, what it starts, and what it shows of jobs."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual import events
from textual.app import App
from textual.widgets import Input
from tui.driving import change_json, key_event, make_job, make_run, run, settle, until
from tui.showing import show

from engine.base.errors import RunError
from engine.evaluation.transfer_plan import GRID, Plan
from engine.jobs import spawn
from engine.jobs.job_runner import check_inputs
from engine.runs.store import RunReader, RunStore
from engine.study.schedule import inputs
from lreg_tui.transfers.panes import JobPane, RequestForm
from lreg_tui.transfers.transfer_request import TransferRequest, facts_of, plan
from lreg_tui.transfers.transfer_screen import TransferScreen
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.sheet_view import SheetView

EVIL = "\x1b]0;owned\x07[bold]x[/bold]\u202e"


@pytest.fixture(autouse=True)
def no_process(monkeypatch):
    """Data and devices are looked at in this process, without one of its own."""
    monkeypatch.setattr(inputs, "check_run", check_inputs)


@pytest.fixture
def store(tmp_path):
    """Two runs with checkpoints (empty files: nothing here reads them), on digits/mlp."""
    for name in ("a-lo", "b-sam"):
        made = make_run(tmp_path / "runs", name)
        for checkpoint in ("best", "last"):
            (made.path / "checkpoint" / f"{checkpoint}.safetensors").touch()
    return RunStore(tmp_path / "runs")


def ids(store: RunStore) -> list[str]:
    return [reader.id for reader in store.list()]


def shown(store: RunStore, folder: Path, run_ids: list[str], doing: Any, size: tuple[int, int] = (80, 24)) -> None:
    """Open the screen on some runs and do something with it: `doing(pilot, screen)`."""

    show(store, folder, lambda: TransferScreen(run_ids), doing, size)


async def type_into(pilot: Any, key: str, text: str) -> None:
    """Open a field, and type in place of what it says."""
    form = pilot.app.screen.query_one(RequestForm)
    form.focus()
    form.select(key)
    await pilot.press("enter")
    pilot.app.screen.query_one(Input).value = ""
    await pilot.press(*text, "enter")
    await settle(pilot)


async def open_list(pilot: Any, key: str, *keys: str) -> None:
    form = pilot.app.screen.query_one(RequestForm)
    form.focus()
    form.select(key)
    await pilot.press("enter", *keys)


def problems(screen: TransferScreen) -> dict[str, str]:
    return dict(screen.query_one(RequestForm).problems)


WRONG = [
    ("steps", "many", 'found "many"; allowed: an integer >= 0 and <= 10000000'),
    ("seeds", "0", "found 0; allowed: an integer >= 1 and <= 10000"),
    ("scales", "1,-1", "found [1, -1]; allowed: a list of numbers > 0 and <= 1000000 (-1 does not fit)"),
    ("radii", "0.1,x", 'found [0.1, "x"]; allowed: a list of numbers >'),
    ("marks", "5000", "found 5000; allowed: inner steps from 0 to 100"),
    ("sets", "meta.epochs=3", "meta: found a table that a transfer evaluation has no use for"),
    ("sets", "evaluation.examples=-1", "evaluation.examples: found -1; allowed: "),
    ("device", "gpu", 'found "gpu"; allowed: auto, cpu, cuda, cuda:N, mps'),
]


def test_wrong_input_is_told_where_it_stands_and_blocks_the_start(store, tmp_path):
    async def doing(pilot, screen):
        form = screen.query_one(RequestForm)
        form.type("steps", "100")
        for key, text, message in WRONG:
            before = form.values[key]
            form.type(key, text)
            await settle(pilot)
            found = problems(screen)
            assert list(found) == [key] and found[key].startswith(message)
            assert found[key] in str(form.get_row(key)[1])
            form.type(key, before)
        await type_into(pilot, "steps", "many")
        assert 'found "many"' in text_of(screen, "#request-help")  # whole, where the line is too short for it
        await pilot.press("f5")
        await settle(pilot)
        assert not store.transfers()

    shown(store, tmp_path, ids(store)[:1], doing)


def test_it_starts_exactly_what_the_command_line_would(store, tmp_path, monkeypatch):
    started: list[RunReader] = []
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **options: started.append(reader))

    async def doing(pilot, screen):
        form = screen.query_one(RequestForm)
        for key, text in {"steps": "200", "seeds": "3", "radii": "0.01, 0.1", "scales": "0.5,1,2"}.items():
            await type_into(pilot, key, text)
        await type_into(pilot, "sets", "evaluation.examples=50 task.classes=[8, 9]")
        await type_into(pilot, "marks", "50,100")
        # beside digits/mlp, which is marked already
        await open_list(pilot, "targets", *"digits/mlp-relu", "space", "enter")
        await open_list(pilot, "untrained")
        await open_list(pilot, "baselines", *"sgd", "space", "enter")
        await open_list(pilot, "checkpoint", "down", "enter")
        await settle(pilot)
        assert problems(screen) == {} and form.request.checkpoint == "last"
        await pilot.press("f5")
        await settle(pilot)

    shown(store, tmp_path, ids(store), doing)
    options = (
        "--to digits/mlp --to digits/mlp-relu --steps 200 --seeds 3 --radii 0.01,0.1 --scales 0.5,1,2 --marks 50,100"
    )
    options += " --checkpoint last --untrained --baseline sgd --set evaluation.examples=50"
    arguments = ["transfer", *ids(store), *options.split(), "--set", "task.classes=[8, 9]", "--detach"]
    lreg(monkeypatch, store, *arguments)
    by_console, by_lreg = (Plan.from_json(reader.plan()) for reader in started)
    assert by_console == by_lreg and len(list(by_console.evaluations())) == 2 * (2 * 4 + 1)


def lreg(monkeypatch: pytest.MonkeyPatch, store: RunStore, *arguments: str) -> None:
    from lreg_tui.cli import app

    monkeypatch.setenv("LREG_RUNS_DIR", str(store.root))
    monkeypatch.setattr(sys, "argv", ["lreg", *arguments])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert not end.value.code


def test_the_runs_own_tasks_are_preselected_with_all_their_keys(tmp_path):
    made = make_run(tmp_path / "runs", "lo", task={"dataset": "digits", "optimizee": "mlp", "hidden": [7]})
    (made.path / "checkpoint" / "best.safetensors").touch()

    async def doing(pilot, screen):
        assert screen.query_one(RequestForm).targets == ("digits/mlp",)
        (task,) = screen.checked.plan.tasks
        assert task["hidden"] == (7,)

    shown(RunStore(tmp_path / "runs"), tmp_path, [made.id], doing)


def test_keys_in_one_burst_go_where_the_first_of_them_leads(store, tmp_path):
    async def doing(pilot, screen):
        for key in ("down", "down", "enter", "2", "0", "enter", "up", "enter"):
            pilot.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await until(pilot, lambda: isinstance(pilot.app.screen, PickList))
        assert pilot.app.screen.heading == "targets"
        assert screen.query_one(RequestForm).request.steps == "20"

    shown(store, tmp_path, ids(store)[:1], doing)


def test_all_is_the_grid_of_the_papers(store, tmp_path):
    async def doing(pilot, screen):
        await open_list(pilot, "targets", "space", "enter")  # `all` is on top, but the cursor starts at what is marked
        await open_list(pilot, "targets", *"all", "space", "enter")
        await settle(pilot)
        names = [f"{task['dataset']}/{task['optimizee']}" for task in screen.checked.plan.tasks]
        assert names == GRID
        assert "9 evaluations: 1 run; 9 tasks" in text_of(screen, "#request-summary")

    shown(store, tmp_path, ids(store)[:1], doing)


def text_of(screen: TransferScreen, selector: str) -> str:
    return str(screen.query_one(selector).render())


def evaluate(reader: RunReader, request: TransferRequest, accuracy: float = 0.9, **changes: Any) -> None:
    """Leave the file of the first evaluation that a request asks for."""
    item = next(plan([reader], request).evaluations())
    mark = {"inner_step": item.protocol.inner_steps, "train_loss": 0.25, "test_loss": 0.5, "test_accuracy": accuracy}
    mark["sharpness"] = {f"{radius:g}": 0.01 for radius in item.protocol.radii}
    found = {
        "run": reader.id,
        "optimizer": item.optimizer,
        "label": item.label,
        "checkpoint": item.source,
        "scale": item.scale,
        "task": facts_of(item.task),
        "protocol": asdict(item.protocol),
        "seeds": [{"seed": seed, "diverged": False, "marks": [mark]} for seed in range(5)],
    }
    path = reader.path / "transfer" / f"{len(list(reader.path.glob('transfer/*')))}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**found, **changes}))


def test_what_is_there_already_is_counted(store, tmp_path):
    reader = store.list()[0]
    evaluate(reader, TransferRequest(steps="100"))
    evaluate(reader, TransferRequest(steps="100"), scale=2.0, label="dm (best) x2", protocol={"inner_steps": 100})

    async def doing(pilot, screen):
        await type_into(pilot, "steps", "100")
        await type_into(pilot, "scales", "1,2")
        assert text_of(screen, "#request-summary").startswith("2 evaluations, 1 of them there already: 1 run; 1 task;")
        await type_into(pilot, "seeds", "6")  # one more than there are
        assert text_of(screen, "#request-summary").startswith("2 evaluations: ")

    shown(store, tmp_path, [reader.id], doing)


def test_a_start_that_fails_is_one_line_and_keeps_the_form(store, tmp_path, monkeypatch):
    def fail(reader: RunReader, **options: Any) -> None:
        raise RunError("mnist: the data are not there")

    monkeypatch.setattr(spawn, "start_detached", fail)

    async def doing(pilot, screen):
        await type_into(pilot, "steps", "77")
        await pilot.press("f5")
        await settle(pilot)
        assert [notice.message for notice in pilot.app._notifications][-1] == "mnist: the data are not there"
        assert not screen.has_class("-jobs") and screen.query_one(RequestForm).request.steps == "77"

    shown(store, tmp_path, ids(store)[:1], doing)


def test_without_its_device_there_is_not_even_a_job(store, tmp_path, monkeypatch):
    monkeypatch.setattr(spawn, "start_detached", lambda *_, **__: pytest.fail("started"))

    async def doing(pilot, screen):
        await type_into(pilot, "device", "cuda:99")
        await pilot.press("f5")
        await settle(pilot)
        assert "cuda:99 is not on this machine" in [notice.message for notice in pilot.app._notifications][-1]
        assert not store.transfers() and not screen.has_class("-jobs")

    shown(store, tmp_path, ids(store)[:1], doing)


def test_a_started_job_is_watched_and_its_results_fill_in(store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        spawn,
        "start_detached",
        lambda reader, **options: change_json(
            reader.path / "status.json", state="stopped", step=0, total=1, message="waiting"
        ),
    )

    async def doing(pilot, screen):
        await type_into(pilot, "steps", "100")
        await pilot.press("f5")
        await settle(pilot)
        (job,) = store.transfers()
        pilot.app.feed.look()
        await settle(pilot)
        pane = screen.query_one(JobPane)
        assert screen.has_class("-jobs") and pane.selected.id == job.id
        _, done, _, _, what = pane.table.get_row(job.id)
        assert (str(what), str(done)) == ("a-lo on digits/mlp", "0/1")
        assert "waiting" in text_of(screen, "#job-progress") and "R resumes it" in text_of(screen, "#job-progress")
        assert "dm (best)" not in pane.query_one(SheetView).text
        evaluate(store.list()[0], TransferRequest(steps="100"), accuracy=0.75)
        change_json(job.path / "status.json", state="finished", step=1, message="")
        pilot.app.feed.look()
        await settle(pilot)
        words = pane.query_one(SheetView).text
        assert words.startswith("digits/mlp\n") and "after 100 inner steps" in words and "75.0" in words
        assert "finished: c compares" in text_of(screen, "#job-progress")
        compared = []
        monkeypatch.setattr(pilot.app, "open_compare", lambda ids, **where: compared.append((ids, where)))
        await pilot.press("c")
        where = {"tab": "results", "task": "digits/mlp", "step": 100}
        assert compared == [((store.list()[0].id,), where)], "at what the job has evaluated"

    shown(store, tmp_path, ids(store)[:1], doing)


def test_the_same_job_does_not_start_twice_while_it_runs(store, tmp_path, monkeypatch):
    alive = {"pid": os.getpid(), "process_started": psutil.Process().create_time()}
    monkeypatch.setattr(
        spawn,
        "start_detached",
        lambda reader, **options: change_json(reader.path / "status.json", state="running", **alive),
    )

    async def doing(pilot, screen):
        await type_into(pilot, "steps", "100")
        for _ in range(2):
            pilot.app.post_message(key_event("f5"))
        await settle(pilot)
        (job,) = store.transfers()
        await pilot.press("f6", "f5")
        await settle(pilot)
        assert [reader.id for reader in store.transfers()] == [job.id]
        assert f"{job.id} is at just this already" in [note.message for note in pilot.app._notifications]
        if not screen.has_class("-jobs"):
            await pilot.press("f6")
        await pilot.press("f6")
        await type_into(pilot, "steps", "200")
        await pilot.press("f5")
        await settle(pilot)
        assert len(store.transfers()) == 2  # another one does
        change_json(job.path / "status.json", state="finished", step=1, total=1)
        await pilot.press("f6")
        await type_into(pilot, "steps", "100")
        await pilot.press("f5")
        await settle(pilot)
        assert len(store.transfers()) == 3  # and the same, when it has ended

    shown(store, tmp_path, ids(store)[:1], doing)


def test_keys_fit_the_job_under_the_cursor_and_leaving_stops_nothing(store, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(spawn, "request", lambda reader, number, purpose: asked.append((reader.id, purpose)))
    third = make_run(tmp_path / "runs", "third")
    jobs = sorted((make_job(tmp_path / "runs", [third], state="stopped") for _ in range(2)), key=lambda job: job.id)
    alive = {"pid": os.getpid(), "process_started": psutil.Process().create_time()}
    change_json(jobs[1].path / "status.json", state="running", heartbeat=time.time(), **alive)

    async def doing(pilot, screen):
        await pilot.press("f6")
        pane = screen.query_one(JobPane)
        assert pane.selected.id == jobs[1].path.name and pane.selected.state == "running", "the newest is on top"
        usable = {binding.key: enabled for _, binding, enabled, _ in screen.active_bindings.values()}
        assert "s" in usable and "u" in usable and "R" not in usable
        await pilot.press("u")
        await settle(pilot)
        assert asked == [(jobs[1].path.name, "pause")]
        await pilot.press("down")
        await settle(pilot)
        assert pane.selected.state == "stopped" and "R" in screen.active_bindings
        await pilot.press("escape")
        await settle(pilot)
        assert not isinstance(pilot.app.screen, TransferScreen) and len(asked) == 1

    shown(store, tmp_path, ids(store)[:1], doing)


def test_hostile_names_and_damaged_plans_are_shown_plainly(tmp_path):
    made = make_run(tmp_path / "runs", "evil")
    change_json(made.path / "run.json", name=EVIL)
    jobs = [make_job(tmp_path / "runs", [made]) for _ in range(4)]
    plans = [json.loads((job.path / "plan.json").read_text()) for job in jobs]
    plans[0]["tasks"] = [{"dataset": ["x"]}]
    plans[1]["settings"]["seeds"] = 10**12
    plans[2] = {"runs": 3}
    plans[3]["tasks"][0]["dataset"] = EVIL
    for job, values in zip(jobs, plans, strict=True):
        (job.path / "plan.json").write_text(json.dumps(values))

    async def doing(pilot, screen):
        value = str(screen.query_one(RequestForm).get_row("runs")[1])
        assert "[bold]x[/bold]" in value and "\x1b" not in value and "\u202e" not in value
        await pilot.press("f6")
        for _ in jobs:
            await settle(pilot)
            words = text_of(screen, "#job-progress")
            assert "plan.json: no plan" in words and not {"\x1b", "\u202e"} & set(words)
            await pilot.press("down")

    shown(RunStore(tmp_path / "runs"), tmp_path, [made.id], doing)


def test_a_run_without_that_checkpoint_or_with_a_damaged_preset_is_told(store, tmp_path):
    first, second = store.list()
    (first.path / "checkpoint" / "best.safetensors").unlink()
    (second.path / "preset.toml").write_text("[task]\ndatset = 1\n")

    async def doing(pilot, screen):
        assert "no checkpoint best; it has last" in problems(screen)["runs"]
        screen.query_one(RequestForm).pick("runs", [second.id])
        await settle(pilot)
        assert "preset.toml: task.datset: found an unknown key" in text_of(screen, "#request-problem")
        screen.query_one(RequestForm).pick("runs", [])
        await settle(pilot)
        assert problems(screen) == {"runs": "pick at least one run"}

    shown(store, tmp_path, [first.id], doing)


def test_the_whole_form_is_in_sight_at_every_size(store, tmp_path):
    async def doing(pilot, screen):
        for columns, lines in ((80, 24), (120, 40), (200, 60)):
            await pilot.resize_terminal(columns, lines)
            await settle(pilot)
            form = screen.query_one(RequestForm)
            assert screen.region.contains_region(form.region) and form.region.height == form.row_count == 14
            assert screen.query_one(JobPane).display == (columns >= 120)

    shown(store, tmp_path, ids(store)[:1], doing)


# -- pick list ---------------------------------------------------------------------------------------------------------


PICKS: list[tuple[list[str], tuple[str, ...], bool, Any]] = [
    (["enter"], (), False, ("a/b",)),
    (["down", "enter"], (), False, ("c",)),
    (["up", "enter"], (), False, ("e",)),
    ([*"red", "enter"], (), False, ("c",)),
    ([*"apple", "space", *"pie", "enter"], (), False, ("a/b",)),
    ([*"nothing", "enter"], (), False, "open"),
    (["escape"], ("c",), False, None),
    (["enter"], ("c",), True, ("c",)),
    (["down", "down", "space", "enter"], ("c",), True, ("c", "e")),
    (["space", "enter"], ("c",), True, ()),
    (["ctrl+a", "enter"], ("e",), True, ("e", "a/b", "c", "d")),
    (["ctrl+a", "ctrl+a", "enter"], ("e",), True, ()),
    ([*"elder", "ctrl+a", *["backspace"] * 5, "enter"], ("c",), True, ("c", "e")),
]
"""Keys, what is marked before, whether several can be, and what comes back ("open": nothing)."""


def test_pick_list():
    choices = [Choice("a/b", "apple pie"), Choice("c", "cherry", "red"), Choice("d", EVIL), Choice("e", "elder")]

    async def scene() -> None:
        app: App[None] = App()
        async with app.run_test(size=(60, 20)) as pilot:
            for keys, chosen, several, expected in PICKS:
                outcome: list[Any] = ["open"]
                app.push_screen(PickList("fruit", choices, chosen, several=several), outcome.append)
                await pilot.pause()
                await pilot.press(*keys)
                await pilot.pause()
                assert outcome[-1] == expected, keys
                if isinstance(app.screen, PickList):
                    await pilot.press("escape")

    run(scene())
