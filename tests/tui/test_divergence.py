"""A divergence is seen: a gap in the line, a mark on the edge, a word in titles and tables; wherever it is recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tui.driving import make_app as app_of
from tui.driving import make_run, run, until

from engine.comparison import group_arms
from engine.figures.meta_training import meta_training
from engine.runs.reader import RunReader
from engine.runs.store import RunStore
from lreg_tui.charts import frame
from lreg_tui.charts.axes import AxisScale, round_out, ticks
from lreg_tui.charts.curve import ChartLine, Curve
from lreg_tui.charts.frame import Picture, Scene
from lreg_tui.charts.picture import paint
from lreg_tui.cli.look import run_table, sort_value
from lreg_tui.figures import axes, page
from lreg_tui.runs.feed import row_of
from lreg_tui.runs.run_columns import BY_KEY, Cell

BRAILLE = {chr(code) for code in range(frame.BRAILLE + 1, frame.BRAILLE + 256)}
FORMS = [("NaN", "nan"), ("null", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e308", "1.000e+308")]


def picture(y: object, width: int = 80, height: int = 24, **more: object) -> Picture:
    values = np.asarray(y, dtype=float)
    line = ChartLine("run", np.arange(float(len(values))), values)
    return paint(Scene(width, height, [Curve(line)], title="loss", **more))  # type: ignore[arg-type]


def write(path: Path, values: list[str]) -> None:
    lines = [f'{{"t": {step}, "step": {step}, "meta_loss": {value}}}\n' for step, value in enumerate(values)]
    (path / "metrics.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(("written", "word"), FORMS)
def test_the_last_value_of_a_file_is_the_one_that_is_told(tmp_path, written, word):
    made = make_run(tmp_path, latest={})
    write(made.path, ["0.5", "0.25", written])
    reader = RunReader(made.path)
    reader.poll()
    steps, values = reader.series("meta_loss")
    assert list(steps) == [0, 1, 2]
    assert picture(values).frame.text().splitlines()[0].startswith(f"loss  {word}")
    assert reader.figures()["meta_loss"] is values[-1] or str(reader.figures()["meta_loss"]) == str(values[-1])


@pytest.mark.parametrize(("value", "glyph", "word"), [
    (math.nan, "×", "1 nan"), (math.inf, "↑", "1 inf"), (-math.inf, "↓", "1 -inf"), (1e308, "↑", "1 too large"),
])  # fmt: skip
@pytest.mark.parametrize("smoothing", [0.0, 0.9])
@pytest.mark.parametrize("count", [60, 5000])
def test_one_value_among_many_leaves_a_gap_a_mark_and_a_word(value, glyph, word, smoothing, count):
    y = np.ones(count)
    y[count // 2] = value
    found = picture(y, smoothing=smoothing)
    rows = found.frame.text().split("\n")
    column = found.column_of(float(count // 2))
    assert column is not None and word in rows[0]
    edge = found.top if glyph == "↑" else found.top + found.height - 1
    assert [number for number, row in enumerate(rows) if glyph in row] == [edge] and rows[edge].index(glyph) == column
    (level,) = [row for row in rows if sum(character in BRAILLE for character in row) > 10]
    assert level[column] != level[column - 4] == level[column + 4] in BRAILLE


@pytest.mark.parametrize(("count", "every"), [(20000, 20), (300, 3)])
def test_gaps_everywhere_hide_no_curve(count, every):
    y = np.sin(np.arange(count) * 9 / count) + 2
    y[::every] = math.nan
    found = picture(y, smoothing=0.0)
    columns = zip(*(row[found.left :].ljust(found.width) for row in found.frame.text().split("\n")[1:-1]), strict=True)
    drawn = sum(any(character in BRAILLE for character in column) for column in columns)
    assert drawn > 0.9 * found.width and f"{count // every:,} nan" in found.frame.text()


def test_each_kind_of_divergence_is_counted():
    values = [1.0, math.nan, math.nan, math.inf, -math.inf, 1e308, -1e308, 2.0]
    assert "2 nan 1 inf 1 -inf 2 too large" in picture(values).frame.text().splitlines()[0]


def test_a_gap_neither_spreads_nor_hides_in_a_smoothed_line():
    y = np.array([1.0, 2.0, math.nan, math.inf, 4.0, 5.0])
    smoothed = Curve(ChartLine("run", np.arange(6.0), y)).smooth(0.9, False)
    assert np.isfinite(smoothed).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize("values", [
    [1e308, -1e308, 1.0], [1e-308, 5e-324, 0.0], [1e300, -1e300], [1.7976931348623157e308] * 3, [5e-324], [-0.0, 0.0],
    [1e299, 1e-299], [math.inf, -math.inf], [math.nan], [1e308], [-1.0, 0.0, 1e-320],
])  # fmt: skip
def test_no_value_is_too_odd_to_be_drawn(values, log_y):
    for unit in ("", "percent", "bytes", "seconds", "count"):
        for width, height in ((80, 24), (20, 6), (3, 3)):
            for smoothing, cursor in ((0.0, None), (0.99, 0.0)):
                drawn = picture(values, width, height, log_y=log_y, unit=unit, smoothing=smoothing, cursor=cursor)
                assert drawn.frame.chars.shape == (height, width), unit


def test_the_cursor_tells_what_was_recorded():
    values = [1.0, math.nan, math.inf, 1e308, 0.0, 2.0]
    words = ["1.000", "nan", "inf", "1.000e+308", "0", "2.000"]
    for cursor, word in enumerate(words):
        head = picture(values, cursor=float(cursor)).frame.text().splitlines()[0]
        assert head.startswith(f"loss  {word}")


@pytest.mark.parametrize(("value", "unit", "low", "high"), [
    (0.0, "percent", 0.0, 0.1), (1.0, "percent", 0.9, 1.0), (0.5, "percent", 0.45, 0.55), (0.0, "count", 0.0, 1.0),
    (7.0, "count", 6.0, 8.0), (1000.0, "count", 900.0, 1100.0), (0.0, "bytes", 0.0, 1.0), (0.0, "seconds", 0.0, 1.0),
    (2.0, "", 1.8, 2.2), (0.0, "", -0.1, 0.1), (-2.0, "", -2.2, -1.8),
])  # fmt: skip
def test_the_axis_of_one_value_is_narrow_and_within_its_unit(value, unit, low, high):
    assert round_out(value, value, unit=unit) == pytest.approx((low, high))


def test_a_share_stays_within_100_percent_on_a_log_axis_and_counts_have_whole_ticks():
    assert round_out(1.0, 1.0, log=True, unit="percent")[1] == 1.0
    found = ticks(AxisScale(*round_out(2.0, 2.0, unit="count")), 8, "count")
    assert [tick.label for tick in found] == ["1", "2", "3"]


def test_the_axis_of_one_record_is_that_of_its_step():
    found = picture([0.25])
    assert found.x is not None and (found.x.low, found.x.high) == (0.0, 1.0)


def text_of(cell: Cell) -> str:
    return "".join(text for text, _ in cell)


def say(path: Path, written: str) -> None:
    """Let a run's status tell this as the newest meta-loss."""
    status = json.loads((path / "status.json").read_text()) | {"latest": {"meta_loss": "HERE"}}
    (path / "status.json").write_text(json.dumps(status).replace('"HERE"', written))


@pytest.mark.parametrize(("written", "word"), [*FORMS[:4], ("1e308", "1.00e+308")])
def test_tables_say_it(tmp_path, written, word):
    write(make_run(tmp_path, "odd").path, ["1", written])
    say(RunStore(tmp_path).list()[0].path, written)

    async def steps() -> None:
        app = app_of(RunStore(tmp_path), tmp_path)
        async with app.run_test(size=(120, 40)) as pilot:
            (row,) = await until(pilot, lambda: app.feed.rows)
            assert text_of(BY_KEY["meta_loss"].show(row)) == word

    run(steps())


def test_lists_on_the_command_line_say_it_and_sort_it_last(tmp_path):
    for name, written in (("lost", "NaN"), ("good", "0.5"), ("gone", "-Infinity")):
        say(make_run(tmp_path, name).path, written)
    listed = sorted(map(row_of, RunStore(tmp_path).list()), key=lambda row: sort_value(row, "meta_loss"))
    assert listed[0].name == "good"
    column = next(part for part in run_table(listed, (), 200).columns if part.header == "meta-loss")
    assert {str(cell) for cell in column.cells} == {"0.5000", "nan", "-inf"}


@pytest.mark.parametrize("count", [10, 900])
def test_figures_for_papers_have_the_gap_and_the_word(tmp_path, count):
    made = make_run(tmp_path, "odd", records=[])
    values = ["1.0"] * count
    values[count // 2], values[-1] = "NaN", "Infinity"
    write(made.path, values)
    panel = meta_training(group_arms([RunReader(made.path)]))[0]
    (line,) = panel.lines
    assert [place for place, _ in line.breaks] == [count // 2, count - 1]
    gaps = {place for place, value in zip(line.x, line.y, strict=True) if math.isnan(value)}
    assert gaps == {count // 2, count - 1}
    with page.styled():
        from matplotlib.figure import Figure

        drawn = Figure().add_subplot()
        axes.draw(drawn, panel)
        drawn.figure.savefig(tmp_path / "figure.svg")
    assert {text.get_text() for text in drawn.texts} >= {"nan", "inf"}


@pytest.mark.parametrize("written", ["NaN", "Infinity", "1e308"])
def test_a_figure_of_nothing_but_divergence_is_drawn(tmp_path, written):
    made = make_run(tmp_path, "lost", records=[])
    write(made.path, [written] * 5)
    panel = meta_training(group_arms([RunReader(made.path)]))[0]
    with page.styled():
        from matplotlib.figure import Figure

        drawn = Figure().add_subplot()
        axes.draw(drawn, panel)
        drawn.figure.savefig(tmp_path / "figure.png")
    assert drawn.texts
