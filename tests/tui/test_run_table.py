"""The run table: order, marks and cursor, what it shows in which width, and how little it draws."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.app import App
from tui.driving import run

from engine.runs.kinds import STUDY, TRANSFER
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.groups import differing
from lreg_tui.runs.run_columns import BAR, BY_KEY, chosen, column, fit
from lreg_tui.runs.run_list import NO_CURVE, RunList
from lreg_tui.runs.run_table import Grid, RunTable
from lreg_tui.widgets import themes

NOW = time.time()


def row(name: str, age_s: float = 0.0, **changes) -> RunRow:
    made = RunRow(
        id=f"id-{name}",
        path=Path(f"runs/id-{name}"),
        name=name,
        state="finished",
        step=10,
        total=10,
        eta_s=None,
        created=NOW - age_s,
        seed=0,
        message="",
        device="cpu",
        latest={"meta_loss": 0.5},
    )
    return replace(made, **changes)


ABC = [row("a", 300, latest={"meta_loss": 0.3}), row("b", 200, latest={"meta_loss": 0.1}), row("c", 100, latest={})]


def names(runs: RunList) -> str:
    return "".join(shown.name for shown in runs.lines)


# -- order, marks and cursor -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "reverse", "expected"),
    [
        ("age", False, "cba"),
        ("age", True, "abc"),
        ("name", False, "abc"),
        ("meta_loss", False, "bac"),
        ("meta_loss", True, "abc"),  # what has none is last either way
        ("state", False, "cba"),  # the newest first where nothing else decides
    ],
)
def test_order(key, reverse, expected):
    runs = RunList()
    runs.replace(ABC)
    sort(runs, key, reverse)
    assert names(runs) == expected


def test_live_runs_come_first_by_state_and_names_whatever_their_case():
    runs = RunList()
    runs.replace([row("b"), row("A", state="crashed"), row("c", state="running")])
    sort(runs, "state", False)
    assert names(runs) == "cAb"
    sort(runs, "name", False)
    assert names(runs) == "Abc"


def test_pinned_runs_are_first_in_every_order():
    runs = RunList()
    runs.replace([*ABC, row("p", 1000, pinned=True, latest={})])
    for reverse in (False, True):
        sort(runs, "meta_loss", reverse)
        assert names(runs)[0] == "p"


def test_the_cursor_stays_on_its_run_when_rows_move_come_and_go():
    runs = RunList()
    runs.replace(ABC)
    runs.move_to(1)
    assert runs.cursor_id == "id-b"
    sort(runs, "meta_loss", False)
    assert runs.cursor == 0 and runs.cursor_id == "id-b"
    runs.replace([*ABC, row("z", latest={"meta_loss": 0.01})])
    assert runs.cursor == 1 and runs.cursor_id == "id-b"
    runs.filter_by(lambda shown: shown.name != "b")
    assert runs.cursor_id == "id-a"  # what took its place
    runs.replace([])
    assert runs.cursor_row is None and runs.selected == [] and runs.cursor_id is None
    runs.replace(ABC)
    assert runs.cursor_row is not None


def test_marks_keep_their_order_and_wait_behind_a_filter():
    runs = RunList()
    runs.replace(ABC)
    sort(runs, "name", False)
    for place in (2, 0):
        runs.move_to(place)
        runs.mark()
    assert [shown.name for shown in runs.selected] == ["c", "a"]
    runs.filter_by(lambda shown: shown.name != "c")
    assert [shown.name for shown in runs.selected] == ["a"]
    runs.filter_by(lambda shown: True)
    assert [shown.name for shown in runs.selected] == ["c", "a"]
    runs.replace(ABC[:2])  # c is deleted
    assert [shown.name for shown in runs.selected] == ["a"]
    runs.move_to(0)
    runs.mark()
    assert [shown.name for shown in runs.selected] == ["a"]  # no mark: the one under the cursor
    runs.mark_all()
    assert len(runs.selected) == 2
    runs.mark_all()
    assert not runs.marked


def test_marked_transfer_jobs_have_no_curve_and_take_no_colour():
    runs = RunList()
    runs.replace([row("job", 1, kind=TRANSFER), row("a", 2), row("b", 3)])
    assert [shown.name for (shown,) in runs.overlaid] == ["job"]  # alone it shows its evaluations
    runs.mark()
    runs.mark_all()  # every run: jobs cannot be compared
    assert runs.marked == {"id-job": NO_CURVE, "id-a": 0, "id-b": 1}
    assert [shown.name for (shown,) in runs.overlaid] == ["a", "b"] and len(runs.selected) == 3


# -- groups and folds --------------------------------------------------------------------------------------------------


def seeds(name: str, losses, **changes) -> list[RunRow]:
    return [
        row(f"{name}-s{seed}", 10 * seed, seed=seed, arm=name, latest={"meta_loss": loss}, **changes)
        for seed, loss in enumerate(losses)
    ]


def test_runs_that_differ_by_seed_only_are_one_line_with_mean_and_interval():
    runs = RunList()
    runs.replace([*seeds("gam", (0.4, 0.6)), *seeds("sam", (0.1, 0.2, 0.3)), row("alone", arm="alone")])
    runs.group_by("seed")
    sort(runs, "meta_loss", False)
    assert [line.name for line in runs.lines] == ["3× sam", "2× gam", "alone"]
    assert "".join(text for text, _ in column("meta_loss").show(runs.lines[1])) == "0.500±1.271"  # 12.706 * 0.1
    runs.move_to(1)
    runs.unfold(True)
    assert [line.name for line in runs.lines] == ["3× sam", "2× gam", "gam-s0", "gam-s1", "alone"]
    runs.move_to(3)
    runs.unfold(False)  # from below it
    assert runs.cursor_line.name == "2× gam" and len(runs.lines) == 3
    runs.group_by("")
    assert runs.cursor_row.name == "gam-s0" and len(runs.lines) == 6


def test_what_is_done_to_a_group_is_done_to_its_runs():
    runs = RunList()
    runs.replace([*seeds("gam", (0.4, 0.6)), *seeds("sam", (0.1, 0.2))])
    runs.group_by("seed")
    assert [shown.name for shown in runs.selected] == ["gam-s0", "gam-s1"]
    assert runs.curves == [(("id-gam-s0", "id-gam-s1"), "2× gam")]  # one curve, their mean
    runs.mark()
    runs.move_to(1)
    runs.mark()
    assert [shown.name for shown in runs.selected] == ["gam-s0", "gam-s1", "sam-s0", "sam-s1"]
    runs.mark()
    assert runs.marked == {"id-gam-s0": 0, "id-gam-s1": 0}
    runs.group_by("")
    marks = {line.name: runs.mark_of(line) for line in runs.lines}
    assert marks == {"gam-s0": 0, "gam-s1": 1, "sam-s0": None, "sam-s1": None}  # the marks are the runs'


def test_groups_by_a_setting_and_by_study():
    runs = RunList()
    settings = {"penalty.gam.rho": 0.05}
    runs.replace(
        [row("a", settings=settings, tags=("study:x",)), row("b", settings=settings), row("c", state="running")]
    )
    assert [(line.kind is STUDY, line.name, line.step, line.total) for line in runs.lines[2:]] == [(True, "x", 1, 1)]
    runs.group_by("penalty.gam.rho")
    assert {line.name for line in runs.lines} == {"c", "2× penalty.gam.rho = 0.05"}


def test_the_line_of_a_study_shows_what_is_best_and_that_its_transfers_are_at_work():
    runs = RunList()
    figures = ({"meta_loss": 0.2, "test_accuracy": 0.8}, {"meta_loss": 0.1, "test_accuracy": 0.7})
    members = [row(str(number), tags=("study:x",), latest=latest) for number, latest in enumerate(figures)]
    job = row("0 -> digits/mlp", kind=TRANSFER, of=("id-0",), state="running")
    runs.replace([*members, job])
    line = runs.lines[0]
    assert line.name == "x" and line.state == "running" and cell("state", line) == "running"
    assert [cell(key, line) for key in ("meta_loss", "test_accuracy")] == ["0.1000", "80.0%"]
    runs.replace([*members, replace(job, state="finished")])
    assert runs.lines[0].state == "finished"


def test_transfer_jobs_are_folded_below_their_run_unless_they_are_at_work():
    runs = RunList()
    job = row("a -> digits/mlp", kind=TRANSFER, of=("id-a",), step=3, total=5)
    other = row("gone -> digits/mlp", kind=TRANSFER, of=("id-gone",))
    runs.replace([row("a"), row("b", 100), job, other])
    assert {line.name for line in runs.lines} == {"a", "b", "gone -> digits/mlp"}
    runs.replace([row("a"), row("b", 100), replace(job, state="running"), other])
    at = [line.name for line in runs.lines].index("a -> digits/mlp")
    assert runs.lines[at - 1].name == "a" and cell("name", runs.lines[at]) == "↳ a -> digits/mlp, 3 of 5"
    runs.select(job.id)
    runs.unfold(False)
    assert runs.cursor_line.name == "a" and job.name not in [line.name for line in runs.lines]
    runs.select(job.id)  # what is looked for is unfolded
    assert runs.cursor_line.name == job.name


# -- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("room", "expected"), [(20, "name"), (45, "name state progress"), (46, "name state progress")])
def test_the_most_telling_columns_stay(room, expected):
    assert [column.key for column in chosen(room, 1)[0]] == expected.split()


def test_columns_keep_their_order_and_fit():
    for room in range(20, 200):
        columns = chosen(room, 1, ABC)[0]
        assert sum(column.width for column in columns) + len(columns) - 1 <= room
        assert [column.key for column in columns] == [key for key in BY_KEY if BY_KEY[key] in columns]
    assert "tags" not in [column.key for column in columns]  # no run has any
    assert "tags" in [column.key for column in chosen(200, 1, [row("a", tags=("paper",))])[0]]


def test_names_get_the_room_that_they_need_before_columns_that_tell_less():
    long, short = row("x" * 40, penalties=("sam",), seed=1), row("a", penalties=("sam",), seed=1)
    assert {"penalty", "seed"} <= {column.key for column in chosen(110, 1, [short])[0]}
    grid = Grid.of([long], 120)
    assert dict(zip((column.key for column in grid.columns), grid.widths, strict=True))["name"] == 40
    assert "penalty" not in [column.key for column in chosen(110, 1, [long])[0]]


def test_a_column_that_is_too_wide_leaves_its_room_to_the_next():
    rows = [row("a", task="mnist/mlp", penalties=("sam",))]
    room = next(room for room in range(60, 200) if "task" in [column.key for column in chosen(room, 1, rows)[0]])
    assert [column.key for column in chosen(room - 1, 1, rows)[0]][-1] == "penalty"


def cell(key: str, shown: RunRow) -> str:
    return "".join(text for text, _ in column(key).show(shown))


GAM = [
    row("a", arm="a", settings={"optimizer.kind": "dm", "penalty.gam.rho": 0.05, "task.hidden": (20, 10)}),
    row("b", arm="b", settings={"optimizer.kind": "dm", "penalty.gam.rho": 0.005, "task.hidden": (20, 10)}),
    row("c", arm="c", settings={"optimizer.kind": "dm", "task.hidden": (20, 10)}, latest={"own_metric": 2.0}),
]


def test_columns_that_do_not_fit_are_counted():
    rows = [row("a", latest={"meta_loss": 0.3, "sharpness": 0.2})]
    assert chosen(200, 1, rows)[1] == 0
    columns, missing = chosen(45, 1, rows)
    assert missing == 3 and not {"meta_loss", "sharpness", "age"} & {column.key for column in columns}
    assert chosen(30, 1, GAM, ("penalty.gam.rho", "own_metric"), only=True)[1] == 1


def test_any_setting_and_metric_is_a_column_and_an_order():
    assert [cell("penalty.gam.rho", shown) for shown in GAM] == ["0.05", "0.005", ""]
    assert cell("task.hidden", GAM[0]) == "20+10" and cell("own_metric", GAM[2]) == "2.000"
    runs = RunList()
    runs.replace(GAM)
    for reverse, expected in ((False, "bac"), (True, "abc")):  # by number, and what has none is last
        sort(runs, "penalty.gam.rho", reverse)
        assert names(runs) == expected
    picked = [shown.key for shown in chosen(80, 1, GAM, ("penalty.gam.rho", "own_metric"))[0]]
    assert picked[:3] == ["name", "penalty.gam.rho", "own_metric"] and "state" in picked
    assert len(chosen(200, 1, GAM, ("penalty.gam.rho",), only=True)[0]) == 2


def test_only_what_differs_among_the_runs():
    assert differing(GAM) == ["penalty.gam.rho"] and differing(GAM[:1]) == []
    other = row("d", arm="d", settings={"optimizer.kind": "simple", "optimizer.layers": 2, "penalty.sam.weight": 1.0})
    # that optimizers of another kind have a number of layers tells nothing; that a penalty is there does
    assert differing([*GAM, other]) == ["optimizer.kind", "penalty.gam.rho", "penalty.sam.weight"]


def test_what_cells_show():
    running = row("a", state="running", step=45, total=100, eta_s=200.0, latest={"meta_loss": 1.2e-7})
    assert cell("progress", running).endswith(" 45%") and len(cell("progress", running)) == BAR + 5
    assert cell("eta", running) == "3m 20s"
    assert cell("meta_loss", running) == "1.20e-07"
    assert cell("meta_loss", row("a", latest={"meta_loss": None})) == "–"
    assert cell("test_accuracy", row("a", latest={"test_accuracy": 0.912})) == "91.2%"
    job = row("transfer", id="20261121-1-transfer-ovpz", kind=TRANSFER, step=3, total=120, latest={})
    assert cell("name", job) == "↳ transfer ovpz"
    assert cell("progress", job).endswith(" 3/120") and len(cell("progress", job)) == BAR + 5
    assert cell("progress", row("a", total=0)) == ""
    assert cell("name", row("\x1b[31m[red]x\n")) == "�[31m[red]x "


def test_fit_counts_columns_of_the_terminal():
    assert fit("abc", 5) == "abc  " and fit("abc", 5, right=True) == "  abc"
    assert fit("abcdef", 4) == "abc…" and fit("日本語", 5) == "日本…"


def test_a_name_is_cut_in_its_middle():
    assert fit("simple-gam-high-s0", 14, ends=True) == "simple-g…gh-s0"
    assert fit("simple-gam-high-s0", 14, ends=True) != fit("simple-gam-high-s1", 14, ends=True)
    assert (
        fit("abcdef", 1, ends=True) == "…" and fit("abcdef", 0, ends=True) == "" and fit("abc", 3, ends=True) == "abc"
    )
    assert all(cell_len(fit("日本語の名前です", width, ends=True)) == width for width in range(1, 16))


def test_a_run_is_selected_when_it_appears_whatever_the_order():
    runs = RunList()
    runs.replace(ABC)
    sort(runs, "meta_loss", False)
    runs.select("id-new")
    assert runs.cursor_id == "id-c"
    runs.replace([*ABC, row("new", latest={})])
    assert runs.cursor_id == "id-new"
    runs.replace([*ABC, row("new", latest={"meta_loss": 0.0})])
    assert runs.cursor == 0 and runs.cursor_id == "id-new"


def test_a_run_that_a_filter_hides_does_not_take_the_cursor_later():
    runs = RunList()
    runs.replace(ABC)
    runs.filter_by(lambda shown: shown.name in "abc")
    runs.select("id-new")
    runs.replace([*ABC, row("new")])
    runs.move_to(1)
    runs.filter_by(lambda shown: True)
    assert runs.cursor_id == "id-b"


def test_the_cursor_that_somebody_has_moved_meanwhile_stays():
    runs = RunList()
    runs.replace(ABC)
    runs.select("id-new")
    runs.move_to(2)
    runs.replace([*ABC, row("new")])
    assert runs.cursor_id == "id-a"


# -- on the screen ---------------------------------------------------------------------------------------------------


class Host(App):
    CSS = "RunTable { height: 1fr; }"

    def __init__(self):
        super().__init__()
        self.table = RunTable()
        self.news = []

    def compose(self):
        yield self.table

    def on_mount(self):
        self.table.focus()

    def on_run_table_selected(self, message):
        self.news.append(message.run_ids)

    def on_run_table_opened(self, message):
        self.news.append(f"open {message.run_id}")

    def on_run_table_layout_changed(self, message):
        self.news.append((self.table.arrangement.sort, self.table.arrangement.reverse))


def drive(steps, size=(80, 8)):
    async def go():
        app = Host()
        async with app.run_test(size=size) as pilot:
            await steps(pilot, app.table, app)

    run(go())


def sort(runs: RunList, key: str, reverse: bool) -> None:
    runs.sorted_by, runs.reverse = key, reverse
    runs.arrange()


def text_of(table: RunTable) -> list[str]:
    return [table.render_line(y).text for y in range(table.size.height)]


def test_a_marked_run_wears_the_marker_of_its_curve():
    async def steps(pilot, table, app):
        table.show_runs([row(f"run{number}", number) for number in range(8)])
        await pilot.press("down", "space", "up", "space")
        await pilot.pause()
        lines = text_of(table)
        assert lines[2].startswith(themes.MARKERS[0]) and lines[1].startswith(themes.MARKERS[1])
        assert app.news[-1] == ("id-run1", "id-run0")
        await pilot.press("asterisk")
        await pilot.pause()
        assert len(app.news[-1]) == 8
        await pilot.press("end")
        await pilot.pause()
        assert text_of(table)[-1].startswith("+ run7")  # the charts show six

    drive(steps)


def test_keys_move_the_cursor_and_open():
    async def steps(pilot, table, app):
        table.show_runs([row(f"run{number:02}", number) for number in range(50)])
        for keys, expected in (("j", 1), ("down", 2), ("k", 1), ("end", 49), ("up", 48), ("home", 0), ("up", 0)):
            await pilot.press(keys)
            assert table.runs.cursor == expected
        await pilot.press("pagedown")
        assert table.runs.cursor == 6
        await pilot.press("enter")
        await pilot.pause()
        assert app.news[-1] == "open id-run06"
        assert any("run06" in line for line in text_of(table))

    drive(steps)


def test_mouse_puts_the_cursor_marks_and_sorts():
    async def steps(pilot, table, app):
        table.show_runs(ABC)
        await pilot.pause()
        await pilot.click(RunTable, offset=(5, 2))
        assert table.runs.cursor_row.name == "b"
        await pilot.click(RunTable, offset=(0, 3))
        assert table.runs.marked == {"id-a": 0}
        heading = text_of(table)[0]
        await pilot.click(RunTable, offset=(heading.index("meta-loss"), 0))
        assert app.news[-1] == ("meta_loss", False) and table.runs.lines[0].name == "b"
        await pilot.click(RunTable, offset=(heading.index("meta-loss"), 0))
        assert app.news[-1] == ("meta_loss", True) and "▼meta-loss" in text_of(table)[0]
        await pilot.click(RunTable, offset=(5, 6))  # below the last run
        await pilot.click(RunTable, offset=(5, 1), times=2)
        assert app.news[-1] == "open id-a"

    drive(steps)


def test_only_cells_that_change_are_drawn():
    async def steps(pilot, table, app):
        rows = [row(f"run{number}", number, state="running", step=number) for number in range(5)]
        table.show_runs(rows)
        await pilot.pause()
        text_of(table)
        drawn = []
        table.refresh = lambda *regions, **options: drawn.extend(regions) or table
        table.show_runs(list(rows))
        assert drawn == []
        table.show_runs([*rows[:2], replace(rows[2], latest={"meta_loss": 0.25}), *rows[3:]])
        (region,) = drawn
        assert region.y == 3 and region.width == BY_KEY["meta_loss"].width

    drive(steps)


def test_a_thousand_runs_are_smooth():
    rows = [row(f"run-{number:04}", number, state="running" if number % 5 else "failed") for number in range(1000)]

    async def steps(pilot, table, app):
        began = time.process_time()
        table.show_runs(rows)
        table.choose(sort="meta_loss")
        table.filter_by(lambda shown: shown.name.endswith("7"))
        table.filter_by(lambda shown: True)
        table.show_runs([replace(shown, step=3) for shown in rows])
        assert time.process_time() - began < 1.0  # five rearrangements
        began = time.process_time()
        for _ in range(20):
            table.action_move(1)
            text_of(table)
        assert (time.process_time() - began) / 20 < 0.1

    drive(steps, size=(200, 60))


def test_the_bar_of_the_focus_moves_no_line():
    async def steps(pilot, table, app):
        table.styles.outline_left = ("outer", "red")
        table.show_runs([row("abc")])
        await pilot.pause()
        lines = [strip.text for strip in app.screen._compositor.render_strips()]
        assert lines[0].index("name") == lines[1].index("abc") == 2 and lines[1].index("finished") > 2

    drive(steps)


def test_columns_follow_the_width():
    async def steps(pilot, table, app):
        table.show_runs([row("some-rather-long-name", state="running", eta_s=60.0)])
        await pilot.pause()
        assert "ETA" in text_of(table)[0] and "age" not in text_of(table)[0]
        await pilot.resize_terminal(120, 8)
        await pilot.pause()
        assert "age" in text_of(table)[0] and "some-rather-long-name" in text_of(table)[1]
        await pilot.resize_terminal(42, 8)
        await pilot.pause()
        assert text_of(table)[0].split() == ["name", "C:", "3", "more", "state", "progress"]
        assert all(len(line) <= 42 for line in text_of(table))

    drive(steps)
