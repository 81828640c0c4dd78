"""The dashboard, driven by its keys on real run folders."""

from __future__ import annotations

import os
import threading

import pytest
from textual.widgets import Input, Static
from tui.driving import Quick, curve, make_app, make_job, make_run, make_store, run, settle, until

from engine.base import machine
from engine.base.machine import Gpu, Load
from engine.runs import notes
from engine.runs.kinds import TRANSFER
from engine.runs.store import RunReader, RunStore
from lreg_tui.app import console
from lreg_tui.app.help import HelpScreen
from lreg_tui.runs import actions
from lreg_tui.runs.machine_panel import MachinePanel, in_brief, rows_of
from lreg_tui.runs.run_notice import RunNotice
from lreg_tui.runs.run_table import RunTable
from lreg_tui.widgets.dialog import ConfirmScreen, PromptScreen
from lreg_tui.widgets.log_tail import LogTail
from lreg_tui.widgets.pick_list import PickList
from lreg_tui.widgets.sheet_view import SheetView

MEASURE = machine.measure


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """A machine whose load does not change, and a console that looks at its runs often."""
    monkeypatch.setattr(machine, "measure", lambda runs: Load(0.5, 4, 2**30, 2**32))
    monkeypatch.setattr(console, "INTERVAL_S", 0.1)


def drive(store, folder, steps, size=(80, 24), **options):
    """Let a test act on the dashboard when it has shown every run."""

    async def go():
        app = make_app(store, folder, **options)
        async with app.run_test(size=size):
            pilot = Quick(app)
            count = len(store.list()) + len(store.transfers())
            await until(pilot, lambda: app.screen.query(RunTable) and len(app.feed.rows) == count)
            await settle(pilot)
            await steps(pilot, app)

    run(go())


def told(app) -> str:
    return "\n".join(notification.message for notification in app._notifications)


def shown(widget: Static) -> str:
    return str(widget.render())


def names(app) -> list[str]:
    return [row.name for row in app.screen.query_one(RunTable).runs.lines]


async def put_cursor_on(pilot, name: str) -> None:
    table = pilot.app.screen.query_one(RunTable)
    table.move_to([row.name for row in table.runs.lines].index(name))
    await settle(pilot)


def screen_text(app) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


# -- what it shows ---------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_states(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        assert names(app) == ["gamma", "beta", "alpha"]
        text = screen_text(app)
        assert "3 runs" in text and "1 running" in text and "1 crashed" in text
        lines = [line for line in text.splitlines() if " beta" in line]
        assert "running" in lines[0] and "20%" in lines[0]

    drive(store, tmp_path, steps)


def test_it_paints_and_answers_before_the_run_store_has_been_read(tmp_path, monkeypatch):
    store, may_look = make_store(tmp_path / "runs"), threading.Event()
    listed = store.list
    monkeypatch.setattr(store, "list", lambda: may_look.wait(240) and listed())

    async def go():
        app = make_app(store, tmp_path)
        async with app.run_test(size=(80, 24)):
            pilot = Quick(app)
            await until(pilot, lambda: "looking into" in screen_text(app))
            await pilot.press("slash")
            await until(pilot, lambda: isinstance(app.screen, PromptScreen))
            await pilot.press("escape")
            may_look.set()
            await until(pilot, lambda: "gamma" in screen_text(app))

    run(go())


def footer(app) -> str:
    return screen_text(app).splitlines()[-1]


def test_an_empty_folder_tells_how_to_start_and_runs_appear_by_themselves(tmp_path):
    async def steps(pilot, app):
        text = await until(pilot, lambda: "No runs yet" in screen_text(app) and screen_text(app))
        assert "lreg run quickstart" in text and "pick a preset" in text
        await until(pilot, lambda: not {"mark", "open", "filter", "compare", "screen"} & {*footer(app).split()})
        assert all(words in footer(app) for words in ("a new run", "q quit", "? help"))
        assert "age" not in screen_text(app).splitlines()[0]
        await pilot.press("z", "tab", "o", "slash", "space", "enter")
        assert len(app.screen_stack) == 1 and app.screen.maximized is None
        make_run(tmp_path / "runs", "newcomer")
        await until(pilot, lambda: "space mark" in footer(app) and "/ filter" in footer(app))
        await until(pilot, lambda: "newcomer" in screen_text(app) and "No runs yet" not in screen_text(app))

    drive(RunStore(tmp_path / "runs"), tmp_path, steps)


def test_a_transfer_job_under_the_cursor_has_no_preset_to_edit(tmp_path):
    made = make_run(tmp_path / "runs", "alpha")
    make_job(tmp_path / "runs", [made])

    async def steps(pilot, app):
        table = app.screen.table
        table.move_to([row.kind is TRANSFER for row in table.runs.lines].index(False))
        await pilot.press("right", "space")
        await settle(pilot)
        assert "e edit" in footer(app)
        table.move_to([row.kind is TRANSFER for row in table.runs.lines].index(True))
        await settle(pilot)
        assert "e edit" not in footer(app)

    drive(RunStore(tmp_path / "runs"), tmp_path, steps, size=(120, 24))


def test_a_crashed_run_shows_its_last_words_and_offers_to_resume(tmp_path, monkeypatch):
    store, resumed = make_store(tmp_path / "runs"), []
    monkeypatch.setattr(actions, "resume", lambda path, data_dir: resumed.append(path.name) or "gamma goes on")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "gamma")
        notice = app.screen.query_one(RunNotice)
        await until(pilot, lambda: "out of memory" in shown(notice))
        assert "gamma crashed at meta-step 7 of 20" in shown(notice) and "R resumes it" in shown(notice)
        await pilot.press("R")
        await until(pilot, lambda: resumed)
        assert resumed[0].endswith(store.list()[2].id[-4:]) and "gamma goes on" in told(app)
        await put_cursor_on(pilot, "alpha")
        assert not notice.display

    drive(store, tmp_path, steps)


def test_transfer_jobs_are_listed_with_their_evaluations(tmp_path):
    made = make_run(tmp_path / "runs", "alpha")
    make_job(tmp_path / "runs", [made], step=2, total=4)

    async def steps(pilot, app):
        assert names(app) == ["alpha"]  # below which its job is folded
        await pilot.press("right")
        await settle(pilot)
        assert "↳ alpha -> digits/mlp, 2 of 4" in screen_text(app)
        await put_cursor_on(pilot, "alpha -> digits/mlp")
        assert app.screen.check_action("transfer", ()) is False  # it is none itself

    drive(RunStore(tmp_path / "runs"), tmp_path, steps, size=(120, 24))


def test_hostile_names_and_logs_are_plain(tmp_path):
    hostile = "[red]\x1b]0;x\x07[/red]"
    made = make_run(tmp_path / "runs", "evil", log=f"{hostile}\n", tags=("[b]",))
    notes.write(made.path, notes.Notes(name=hostile))

    async def steps(pilot, app):
        text = screen_text(app)
        assert "[red]�]0;x�[/red]" in text and "\x1b" not in text
        await until(pilot, lambda: "[red][/red]" in screen_text(app))  # the log
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "[red]�" in screen_text(app)

    drive(RunStore(tmp_path / "runs"), tmp_path, steps, size=(120, 40))


def test_what_the_feed_tells_again_is_not_drawn_again(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await until(pilot, lambda: app.screen.query_one(LogTail).lines)
        await until(pilot, lambda: all(panel.chart.lines for panel in app.screen.panels.all))
        await until(pilot, lambda: app.screen.query_one(MachinePanel)._rows)
        app.feed.stop()
        await until(pilot, lambda: not app.feed._thread.is_alive())
        await settle(pilot)
        first, second = screen_text(app).splitlines()[:2]
        assert "▲age" in second and "▲age" not in first  # the head tells an order that no column does
        painted = []
        display = app._display
        app._display = lambda screen, renderable: painted.append(renderable) or display(screen, renderable)
        app.screen.on_runs_changed(type("Again", (), {"rows": app.feed.rows}))
        app.screen.query_one(LogTail).look()  # (the machine's own figures do change)
        await settle(pilot)
        assert [drawn for drawn in painted if drawn is not None] == []

    drive(store, tmp_path, steps, size=(120, 40))


# -- filter and order ------------------------------------------------------------------------------------------------


async def filter_with(pilot, words: str, *then: str) -> None:
    """Type a filter, and press other keys then."""
    await pilot.press("slash")
    await until(pilot, lambda: isinstance(pilot.app.screen, PromptScreen) and isinstance(pilot.app.focused, Input))
    await pilot.press(*words, *then)


def test_a_filter_works_while_it_is_typed_and_is_remembered(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await filter_with(pilot, "state:runn")
        table = app.screen_stack[0].query_one(RunTable)
        await until(pilot, lambda: [row.name for row in table.runs.lines] == ["beta"])
        await pilot.press("x")
        await until(pilot, lambda: "did you mean running?" in shown(app.screen.query_one("#note", Static)))
        assert [row.name for row in table.runs.lines] == ["beta"]  # the last one that meant something
        await pilot.press("enter")
        assert isinstance(app.screen, PromptScreen)  # a wrong one is not taken
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: not isinstance(app.screen, PromptScreen))
        await until(pilot, lambda: names(app) == ["beta"] and "/state:runn" in screen_text(app))

    async def again(pilot, app):
        assert names(app) == ["beta"]
        await pilot.press("escape")
        await until(pilot, lambda: len(names(app)) == 3)
        await filter_with(pilot, "nobody", "enter")
        await until(pilot, lambda: "No run matches nobody" in screen_text(app))
        await filter_with(pilot, "x", "escape")
        await settle(pilot)
        assert "No run matches nobody" in screen_text(app)  # left as it was

    drive(store, tmp_path, steps)
    drive(store, tmp_path, again)


def test_a_filter_and_an_order_stay_with_the_run_store_that_they_were_chosen_for(tmp_path):
    first, second = (make_store(tmp_path / name) for name in ("runs", "others"))

    async def choose(pilot, app):
        await filter_with(pilot, "beta", "enter")
        await pilot.press("O", "m", "down", "enter")
        await until(pilot, lambda: names(app) == ["beta"])

    async def elsewhere(pilot, app):
        assert names(app) == ["gamma", "beta", "alpha"]
        await filter_with(pilot, "alpha", "enter")

    async def again(pilot, app):
        assert names(app) == ["beta"]
        await pilot.press("escape")
        assert names(app) == ["alpha", "beta", "gamma"]

    async def there(pilot, app):
        assert names(app) == ["alpha"]

    for store, steps in ((first, choose), (second, elsewhere), (first, again), (second, there)):
        drive(store, tmp_path, steps)


def test_completion_takes_the_right_arrow_key(tmp_path):
    async def steps(pilot, app):
        await pilot.press("slash", *"pen")
        await until(pilot, lambda: app.screen.query_one(Input)._suggestion == "penalty:")
        await pilot.press("right", "s")
        await until(pilot, lambda: app.screen.query_one(Input)._suggestion == "penalty:sam")

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_the_order_is_remembered(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await pilot.press("o", *"meta-loss, best", "enter")
        await settle(pilot)
        await until(pilot, lambda: names(app) == ["alpha", "gamma", "beta"])  # by the least that any had: it is read
        await pilot.press("O")
        assert names(app) == ["beta", "gamma", "alpha"] and "best" in screen_text(app)

    async def again(pilot, app):
        await until(pilot, lambda: names(app) == ["beta", "gamma", "alpha"])

    drive(store, tmp_path, steps)
    drive(store, tmp_path, again)


def test_a_question_about_a_study_takes_few_keys(tmp_path):
    for rho in (0.01, 0.05):
        for seed in (0, 1):
            latest = {"meta_loss": rho + seed / 100, "sharpness": 0.1}
            tables = {"penalty": {"gam": {"weight": 1.0, "rho": rho}}, "seed": seed}
            make_run(tmp_path / "runs", f"lo-gam-{rho}-s{seed}", latest=latest, tags=["study:lo"], **tables)
    store = RunStore(tmp_path / "runs")

    async def steps(pilot, app):
        assert names(app) == ["lo"] and "study lo" in screen_text(app)
        await pilot.press("B", "enter")
        await settle(pilot)
        await pilot.press("o", *"meta-loss, last", "enter")
        await settle(pilot)
        lines = screen_text(app).splitlines()
        assert "gam.rho" in lines[1] and "2× lo-gam-0.01" in lines[2] and "0.0150±" in lines[2]
        await pilot.press("home", "right")
        assert names(app) == ["2× lo-gam-0.01", "lo-gam-0.01-s0", "lo-gam-0.01-s1", "2× lo-gam-0.05"]
        await pilot.press("left", "space", "C", *"task.dataset", "space", "enter")
        await settle(pilot)
        assert names(app) == ["2× lo-gam-0.01", "2× lo-gam-0.05"] and len(app.screen.subjects()) == 2
        await pilot.press("slash", *"rho<0.02", "enter")
        await settle(pilot)
        assert names(app) == ["2× lo-gam-0.01"]

    async def again(pilot, app):
        await until(pilot, lambda: names(app) == ["2× lo-gam-0.01"])  # once it is known whose setting rho is
        lines = screen_text(app).splitlines()
        assert "task.dataset" in lines[1] and "digits" in lines[2] and "2× lo-gam-0.01" in lines[2]

    drive(store, tmp_path, steps, size=(100, 24))
    drive(store, tmp_path, again, size=(100, 24))


def test_a_damaged_memory_is_none(tmp_path):
    (tmp_path / "console.json").write_text(
        '{"views": {"dashboard": {"sort": 3, "filter": "state:nowhere", "metrics": [1], "panel": 99, "reverse": "x"}}}'
    )

    async def steps(pilot, app):
        assert len(names(app)) == 3

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


# -- panels ----------------------------------------------------------------------------------------------------------


def test_marked_runs_are_overlaid_and_else_the_one_under_the_cursor(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        panels = app.screen.panels.all
        assert [panel.metric for panel in panels] == ["meta_loss", "sharpness", "test_accuracy"]
        await until(pilot, lambda: [label for _, label in panels[0].runs] == ["gamma"])
        await until(pilot, lambda: len(panels[0].chart.lines) == 1)
        assert list(panels[0].chart.lines[0].y) == [record["meta_loss"] for record in curve(7)]
        await pilot.press("down", "space", "down", "space")
        await until(pilot, lambda: [label for _, label in panels[2].runs] == ["beta", "alpha"])
        await until(pilot, lambda: len(panels[2].chart.lines) == 2)
        await pilot.press("escape")
        await until(pilot, lambda: [label for _, label in panels[0].runs] == ["alpha"])

    drive(store, tmp_path, steps, size=(200, 60))


def test_at_most_six_runs_are_overlaid(tmp_path):
    for number in range(8):
        make_run(tmp_path / "runs", f"run{number}")

    async def steps(pilot, app):
        await pilot.press("asterisk")
        await until(pilot, lambda: len(app.screen.panels.all[0].runs) == 6)

    drive(RunStore(tmp_path / "runs"), tmp_path, steps)


def test_another_metric_is_one_key_away_and_is_remembered(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await pilot.press("2", "m")
        await until(pilot, lambda: isinstance(app.screen, PickList))
        await pilot.press(*"accur", "enter")
        await settle(pilot)
        assert app.screen.panels.metrics == ["meta_loss", "test_accuracy", "test_accuracy"]

    async def again(pilot, app):
        assert app.screen.panels.metrics == ["meta_loss", "test_accuracy", "test_accuracy"]

    drive(store, tmp_path, steps)
    drive(store, tmp_path, again)


def displayed(app) -> list[str]:
    """Metrics of the panels in view, and the log and the machine if they are."""
    found = [panel.metric for panel in app.screen.panels.all if panel.region and panel.is_on_screen]
    return [*found, *(name for name in ("log", "machine") if app.screen.query_one(f"#{name}").is_on_screen)]


VIEWS = {
    (60, 20): ["meta_loss"],
    (200, 60): ["meta_loss", "sharpness", "test_accuracy", "log", "machine"],
    (80, 24): ["meta_loss"],
    (120, 28): ["meta_loss", "sharpness", "test_accuracy"],
    (120, 40): ["meta_loss", "sharpness", "test_accuracy", "log", "machine"],
}


def test_what_is_in_view_follows_the_size(tmp_path):
    async def steps(pilot, app):
        table = app.screen.query_one(RunTable)
        for size, expected in VIEWS.items():
            await pilot.resize_terminal(*size)
            await until(pilot, lambda expected=expected: displayed(app) == expected)
            assert table.region.height >= 6 and all(panel.region.height >= 8 for panel in app.screen.panels.all[:1])

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_tab_goes_through_the_panels_of_a_narrow_screen(tmp_path):
    async def steps(pilot, app):
        seen = []
        for _ in range(5):
            await pilot.press("tab")
            await pilot.pause()
            seen += displayed(app)
        assert seen == ["meta_loss", "sharpness", "test_accuracy", "log", "log"]
        assert app.focused is app.screen.query_one(RunTable)
        await pilot.press("2")
        await pilot.pause()
        assert displayed(app) == ["sharpness"] and app.focused is app.screen.query_one(RunTable)

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_the_focus_goes_along_to_the_panel_that_a_number_chooses(tmp_path):
    async def steps(pilot, app):
        await pilot.press("tab", "2")
        assert displayed(app) == ["sharpness"] and app.focused is app.screen.panels.all[1].chart
        await pilot.press("4")
        assert displayed(app) == ["log"] and app.focused is app.screen.query_one(LogTail)
        await pilot.press("escape", "down", "1")
        table = app.screen.query_one(RunTable)
        assert app.focused is table and table.runs.cursor == 1

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_a_panel_fills_the_screen_and_gives_it_back(tmp_path):
    async def steps(pilot, app):
        await pilot.press("2", "z")
        await pilot.pause()
        panel = app.screen.panels.all[1]
        assert panel.region.width == 80 and panel.region.height >= 20 and app.focused is panel.chart
        await pilot.press("tab")
        await pilot.pause()
        assert app.screen.panels.all[2].region.height >= 20
        await pilot.press("escape")
        await pilot.pause()
        assert app.focused is app.screen.query_one(RunTable) and app.screen.query_one(RunTable).region.height > 8

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_keys_are_answered_while_a_long_run_is_being_read(tmp_path, monkeypatch):
    store, may_read = make_store(tmp_path / "runs"), threading.Event()
    poll = RunReader.poll
    monkeypatch.setattr(RunReader, "poll", lambda reader: may_read.wait(240) and poll(reader))

    async def steps(pilot, app):
        await pilot.press("down", "m")
        await until(pilot, lambda: isinstance(app.screen, PickList))
        await pilot.press("escape", "down")
        assert app.screen.query_one(RunTable).runs.cursor_row.name == "alpha"
        may_read.set()
        await until(pilot, lambda: app.screen.panels.all[0].chart.lines)

    drive(store, tmp_path, steps)


def test_the_log_is_that_of_the_run_under_the_cursor(tmp_path):
    store = make_store(tmp_path / "runs")
    (store.list()[0].path / "log.txt").write_text("alpha speaks\n")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "alpha")
        await until(pilot, lambda: "alpha speaks" in screen_text(app))
        await put_cursor_on(pilot, "gamma")
        await until(pilot, lambda: "out of memory" in screen_text(app) and "alpha speaks" not in screen_text(app))

    drive(store, tmp_path, steps, size=(120, 40))


# -- actions ---------------------------------------------------------------------------------------------------------


def test_deleting_asks_and_enter_alone_is_no(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "alpha")
        for key in ("enter", "escape", "n"):
            await pilot.press("D")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "Delete alpha?" in screen_text(app)
            await pilot.press(key)
            await settle(pilot)
            assert len(store.list()) == 3
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: names(app) == ["gamma", "beta"])
        assert [reader.facts["name"] for reader in store.list()] == ["beta", "gamma"]

    drive(store, tmp_path, steps)


async def delete(pilot, count: int) -> None:
    await pilot.press("D", "y")
    await until(pilot, lambda: len(names(pilot.app)) == count)


def test_after_a_delete_the_cursor_is_where_it_was_and_undo_brings_each_back(tmp_path):
    made = [make_run(tmp_path / "runs", f"run {number}", age_s=60 * number) for number in range(8)]

    async def steps(pilot, app):
        runs = app.screen.query_one(RunTable).runs
        await pilot.press("down", "down", "down")
        for count, name in ((7, "run 4"), (6, "run 5")):
            await delete(pilot, count)
            assert runs.cursor == 3 and runs.cursor_row.name == name
        await pilot.press("end")
        await delete(pilot, 5)
        assert runs.cursor == 4 and runs.cursor_row.name == "run 6"
        for count, name in ((6, "run 7"), (7, "run 4"), (8, "run 3")):
            await pilot.press("U")
            await until(pilot, lambda count=count, name=name: (len(names(app)), runs.cursor_row.name) == (count, name))
        await pilot.press("home", "space", "down", "down", "space")
        await delete(pilot, 6)
        assert names(app)[:2] == ["run 1", "run 3"] and not runs.marked
        await pilot.press("U")
        await until(pilot, lambda: names(app) == [f"run {number}" for number in range(8)])
        assert "U" not in app.screen.active_bindings
        await delete(pilot, 7)

    drive(RunStore(tmp_path / "runs"), tmp_path, steps)
    assert sum(run.path.exists() for run in made) == 7 and not (tmp_path / "runs" / ".trash").exists()


def test_live_runs_cannot_be_deleted_and_ended_ones_not_stopped(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "beta")
        assert app.screen.check_action("delete_run", ()) is False and app.screen.check_action("stop_run", ())
        await pilot.press("D")
        await settle(pilot)
        assert app.screen.query(RunTable) and len(store.list()) == 3
        await put_cursor_on(pilot, "alpha")
        assert app.screen.check_action("stop_run", ()) is False and app.screen.check_action("delete_run", ())
        assert app.screen.check_action("resume_run", ()) is False

    drive(store, tmp_path, steps)


def test_stop_asks_and_an_error_is_told_in_a_line(tmp_path):
    store = make_store(tmp_path / "runs")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "beta")
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Stop beta?" in screen_text(app)
        await pilot.press("y")  # this process holds it, which does not listen
        await until(pilot, lambda: "does not listen to signals" in told(app))
        assert app.screen.query(RunTable)

    drive(store, tmp_path, steps)


def test_rename_tag_and_pin(tmp_path):
    store = make_store(tmp_path / "runs")
    alpha = store.list()[0]

    async def steps(pilot, app):
        await put_cursor_on(pilot, "alpha")
        await pilot.press("r", *"-2", "enter")
        await until(pilot, lambda: "alpha-2" in names(app))
        await pilot.press("T", *"paper night", "enter")
        await until(pilot, lambda: notes.read(alpha.path).tags == ("paper", "night"))
        await pilot.press("p")
        await until(pilot, lambda: names(app)[0] == "alpha-2")
        assert app.screen.query_one(RunTable).runs.cursor_row.name == "alpha-2"
        await pilot.press("T", *"-paper", "enter")
        await until(pilot, lambda: app.row(alpha.id).tags == ("night",))
        await pilot.press("U")
        await until(
            pilot, lambda: set(app.row(alpha.id).tags) == {"paper", "night"} and "as before: alpha-2" in told(app)
        )
        await pilot.press("T", *"-paper", "enter")
        await until(pilot, lambda: app.row(alpha.id).tags == ("night",))
        await pilot.press("r")
        app.screen.query_one(Input).value = "x" * 90
        await pilot.press("enter")
        assert "allowed: at most 80" in shown(app.screen.query_one("#note", Static))

    drive(store, tmp_path, steps)
    assert notes.read(alpha.path) == notes.Notes("alpha-2", ("night",), True)


def test_actions_are_for_the_marked_runs(tmp_path):
    for name in ("a", "b", "c"):
        make_run(tmp_path / "runs", name)
    store = RunStore(tmp_path / "runs")

    async def steps(pilot, app):
        await put_cursor_on(pilot, "a")
        await pilot.press("space")
        await put_cursor_on(pilot, "b")
        await pilot.press("space")
        await put_cursor_on(pilot, "c")
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Delete a, b?" in screen_text(app)
        await pilot.press("y")
        await until(pilot, lambda: names(app) == ["c"] and "delete: " in told(app))
        assert [str(note.message) for note in app._notifications] == ["delete: a, b"], "one for both"

    drive(store, tmp_path, steps)


def test_compare_wants_two_runs_at_least(tmp_path):
    store, opened = make_store(tmp_path / "runs"), []

    async def steps(pilot, app):
        app.open_compare = opened.append
        await pilot.press("space", "c")
        assert isinstance(app.screen, PickList) and not opened  # with which others?
        await pilot.press("escape", "down", "space", "c")
        assert [RunReader(store.root / run_id).facts["name"] for run_id in opened[0]] == ["gamma", "beta"]

    drive(store, tmp_path, steps)


def test_enter_opens_and_y_copies_the_id(tmp_path):
    store, opened = make_store(tmp_path / "runs"), []

    async def steps(pilot, app):
        app.open_run = opened.append
        await put_cursor_on(pilot, "alpha")
        await pilot.press("enter", "y")
        await settle(pilot)
        assert opened == [store.list()[0].id] and app.clipboard == store.list()[0].id
        app.open_transfer = opened.append
        await pilot.press("t")
        assert opened[-1] == [store.list()[0].id]

    drive(store, tmp_path, steps)


# -- everywhere ------------------------------------------------------------------------------------------------------


def test_help_lists_every_key_and_the_filter_language(tmp_path):
    async def steps(pilot, app):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        page = app.screen.query_one(Static)
        text = "\n".join(strip.text for strip in page.render_lines(page.size.region))
        for key, meaning in (
            ("D", "delete the run folder"),
            ("space", "mark for overlay"),
            ("↑", "up"),
            ("q", "leave the console"),
        ):
            assert any(key in line.split() and meaning in line for line in text.splitlines()), (key, meaning)
        assert "meta_loss<0.5" in text and text.count("new run") <= 1
        await pilot.press("question_mark")
        await settle(pilot)
        assert app.screen.query(RunTable)

    drive(make_store(tmp_path / "runs"), tmp_path, steps)


def test_without_a_gpu_its_lines_are_not_there():
    load = Load(0.25, 8, 2**30, 2**32)
    assert [label for label, _, _ in rows_of(load)] == ["CPU", "memory"]
    assert in_brief(load) == "CPU 25%  mem 25%"


def test_gpus_are_read_from_what_nvidia_smi_prints():
    gpus = machine.parse_gpus("1024, 81920, 45, 61\n[N/A], 16384, [N/A], 33\nsome warning\n\n")
    assert gpus == (Gpu(2**30, 80 * 2**30, 0.45, 61.0), Gpu(None, 2**34, None, 33.0))
    labels = [label for label, _, _ in rows_of(Load(0.0, 1, 0, 1, gpus=gpus))]
    assert labels == ["GPU 0", "", "GPU 1", "CPU", "memory"]


def test_the_machine_is_measured(tmp_path):
    load = MEASURE(tmp_path / "not there yet")
    assert 0 < load.memory_used < load.memory_total and load.cores >= 1 and 0 < load.disk_free <= load.disk_total


def test_a_run_of_another_kind_of_task_has_what_it_is_judged_by_in_its_panel(tmp_path):
    """Back on a classifier's run the accuracy is there again."""
    store = RunStore(tmp_path / "runs")
    make_run(store.root, "classifier", age_s=60)
    perplexity = {"meta_loss": 2.0, "test_loss": 4.0, "test_perplexity": 54.6}
    make_run(store.root, "language", records=[{"step": 1, **perplexity}], latest=perplexity)

    async def steps(pilot, app):
        await until(pilot, lambda: app.screen.panels.metrics == ["meta_loss", "sharpness", "test_perplexity"])
        await pilot.press("down")
        await until(pilot, lambda: app.screen.panels.metrics == ["meta_loss", "sharpness", "test_accuracy"])

    drive(store, tmp_path, steps)


def test_adaptive_sharpness_takes_the_place_of_sharpness_where_it_was_measured(tmp_path):
    """A run of before has its sharpness still."""
    store = RunStore(tmp_path / "runs")
    make_run(store.root, "earlier", age_s=60)
    measured = {"meta_loss": 2.0, "test_loss": 4.0, "test_accuracy": 0.5, "sharpness": 0.1, "adaptive_sharpness": 0.3}
    make_run(store.root, "now", records=[{"step": 1, **measured}], latest=measured)

    async def steps(pilot, app):
        await until(pilot, lambda: app.screen.panels.metrics == ["meta_loss", "adaptive_sharpness", "test_accuracy"])
        await pilot.press("down")
        await until(pilot, lambda: app.screen.panels.metrics == ["meta_loss", "sharpness", "test_accuracy"])

    drive(store, tmp_path, steps)


def words(app) -> list[str]:
    """Of the sheets in view."""
    return app.screen.query_one(SheetView).text.split()


def test_the_process_of_each_run_is_told_with_what_it_takes(tmp_path):
    """One that has crashed has none; neither has one on another host."""
    store = RunStore(tmp_path / "runs")
    make_run(store.root, "at-work", state="running")
    make_run(store.root, "done")

    async def steps(pilot, app):
        await until(pilot, lambda: len(app.feed.rows) == 2)
        await pilot.press("P")
        await until(pilot, lambda: "at-work" in screen_text(app) and "CPU" in screen_text(app))
        for size in ((80, 24), (60, 20)):  # also where not all columns fit side by side
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: {"read/s", "written/s", "process", str(os.getpid())} <= {*words(app)})
            assert "done" not in words(app)
        await pilot.press("P")
        await settle(pilot)
        assert app.screen.query(RunTable)

    drive(store, tmp_path, steps, size=(80, 24))
