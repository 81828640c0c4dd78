"""What charts compute: decimation, ticks, smoothing, views, legends. No screen."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest

from lreg_tui.charts import frame, heat_map, marks
from lreg_tui.charts.axes import AxisScale, View, kept, nice_step, panned, round_out, ticks, usable, zoomed
from lreg_tui.charts.curve import ChartLine, Curve, decimate, exponential
from lreg_tui.charts.frame import Frame, Picture, Scene
from lreg_tui.charts.marks import LegendEntry
from lreg_tui.charts.picture import paint
from lreg_tui.widgets.themes import MARKERS

BRAILLE = {chr(code) for code in range(frame.BRAILLE + 1, frame.BRAILLE + 256)}


def line(y, x=None, label="run", **more) -> ChartLine:
    y = np.asarray(y, dtype=float)
    return ChartLine(label, np.arange(len(y), dtype=float) if x is None else np.asarray(x, dtype=float), y, **more)


def picture(*lines: ChartLine, width: int = 80, height: int = 24, **more) -> Picture:
    by_time = more.get("by_time", False)
    return paint(Scene(width, height, [Curve(each, by_time) for each in lines], **more))


def width_of(row: marks.Runs) -> int:
    return marks.cell_len("".join(text for text, _ in row))


def plot_of(found: Picture) -> list[str]:
    """The lines of the terminal between title and axis, without the labels of y."""
    rows = found.frame.text().split("\n")
    return [row[found.left :] for row in rows[found.top : found.top + found.height]]


# -- decimation ------------------------------------------------------------------------------------------------------


def brute_extremes(x, y, edges):
    """Least and greatest value of each column, one record at a time; the last column holds its right border."""
    columns = len(edges) - 1
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    for place, value in zip(x, y, strict=True):
        inside = [
            c for c in range(columns) if edges[c] <= place < edges[c + 1] or (c == columns - 1 and place == edges[-1])
        ]
        for column in inside:
            low[column], high[column] = np.fmin(low[column], value), np.fmax(high[column], value)
    return low, high


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("part", [(0.0, 1.0), (0.2, 0.4), (-0.5, 0.3), (0.9, 2.0)])
def test_decimation_is_the_least_and_greatest_record_of_each_column(part, gaps):
    rng = np.random.default_rng(7)
    x, y = np.sort(rng.uniform(0, 1, 700)).round(2), rng.normal(size=700)  # rounded: several records on one place
    x[-1] = 1.0
    if gaps:
        y[rng.integers(0, 700, 200)] = np.nan
        y[100:180] = np.nan  # some columns have nothing but gaps
    edges = np.linspace(*part, 41)

    found = decimate(x, y, edges)

    low, high = brute_extremes(x, y, edges)
    np.testing.assert_array_equal(found.records[0], low)
    np.testing.assert_array_equal(found.records[1], high)


def test_a_line_between_two_records_is_straight_and_reaches_every_column():
    found = decimate(np.array([0.0, 10.0]), np.array([0.0, 20.0]), np.linspace(2, 8, 7))
    np.testing.assert_allclose(found.borders, [4, 6, 8, 10, 12, 14, 16])
    np.testing.assert_allclose(found.low, [4, 6, 8, 10, 12, 14])
    np.testing.assert_allclose(found.high, [6, 8, 10, 12, 14, 16])


def test_a_line_is_straight_on_the_screen_on_log_axes_too():
    """y = x^2 is a straight line of slope 2 when both axes are logarithmic, also between its records."""
    x = np.array([1.0, 10.0, 1000.0])
    edges = AxisScale(1.0, 1000.0, log=True).edges(30)
    found = decimate(x, x**2, edges, log_x=True, log_y=True)
    np.testing.assert_allclose(found.borders[1:-1], 2 * np.log10(edges[1:-1]), atol=1e-12)


def test_nothing_is_drawn_across_a_gap():
    found = decimate(np.arange(5.0), np.array([1, 1, np.nan, 1, 1]), np.linspace(0, 4, 9))
    assert np.isfinite(found.low).tolist() == [True, True, True, False, False, False, True, True]


def test_one_spike_among_a_million_records_is_seen():
    y = np.full(10**6, 1.0)
    y[777_777] = 50.0
    found = picture(line(y), height=24)
    rows = plot_of(found)
    top = [column for column, char in enumerate(rows[0]) if char in BRAILLE]
    assert top == [int(777_777 / 1_000_000 * found.width)]
    assert sum(char in BRAILLE for row in rows[1:-2] for char in row) == found.height - 3  # the spike's own stem


# -- axes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "step"), [(1.0, 1.0), (1.1, 2.0), (2.1, 5.0), (7.0, 10.0), (0.03, 0.05), (0.1, 0.1), (300, 500)]
)
def test_steps_are_one_two_or_five(length, step):
    assert nice_step(length) == pytest.approx(step)


@pytest.mark.parametrize(
    ("scale", "most", "unit", "labels"),
    [
        (AxisScale(0, 100), 5, "", ["0", "20", "40", "60", "80", "100"]),
        (AxisScale(0, 1_000_000), 4, "", ["0", "500k", "1M"]),
        (AxisScale(0, 2_000_000), 4, "", ["0", "500k", "1M", "1.5M", "2M"]),
        (AxisScale(500_000, 500_008), 4, "", ["500000", "500002", "500004", "500006", "500008"]),
        (AxisScale(-0.2, 0.2), 4, "", ["-0.2", "-0.1", "0", "0.1", "0.2"]),
        (AxisScale(0, 4e-5), 4, "", ["0", "1e-5", "2e-5", "3e-5", "4e-5"]),
        (AxisScale(0.5, 1), 5, "percent", ["50%", "60%", "70%", "80%", "90%", "100%"]),
        (AxisScale(0, 3 * 2**30), 3, "bytes", ["0", "1 GiB", "2 GiB", "3 GiB"]),
        (AxisScale(0, 3600), 4, "seconds", ["0", "15m", "30m", "45m", "1h"]),
        (AxisScale(0, 9000), 5, "seconds", ["0", "30m", "1h", "1h30", "2h", "2h30"]),
        (AxisScale(0, 45), 4, "seconds", ["0", "15s", "30s", "45s"]),
        (AxisScale(0, 4 * 86400), 4, "seconds", ["0", "1d", "2d", "3d", "4d"]),
        (AxisScale(1e-3, 1e3, log=True), 8, "", ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        (AxisScale(1e-6, 1, log=True), 3, "", ["1e-6", "0.001", "1"]),
        (AxisScale(0.5, 60, log=True), 8, "", ["0.5", "1", "2", "5", "10", "20", "50"]),
        (AxisScale(0.21, 0.24, log=True), 3, "", ["0.21", "0.22", "0.23", "0.24"]),
    ],
)
def test_ticks_are_round_and_show_the_original_values(scale, most, unit, labels):
    assert [tick.label for tick in ticks(scale, most, unit)] == labels


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.013, 17.2), (1e-12, 3e-12), (5.0, 5.0), (1e-300, 1e300), (99.0, 101.0)])
def test_a_range_is_round_holds_the_values_and_is_mostly_full(low, high, log):
    bottom, top = round_out(low, high, log)
    assert bottom <= low and high <= top and bottom < top
    if low < high:
        scale = AxisScale(bottom, top, log)
        assert scale.position(low) < 0.2 and scale.position(high) > 0.8


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-320, 1e300, 5e-324])
def test_constant_values_have_a_range(value):
    bottom, top = round_out(value, value)
    assert bottom < value < top


@pytest.mark.parametrize("scale", [AxisScale(-3, 9), AxisScale(0.001, 700, log=True)])
def test_places_and_values_are_inverse(scale):
    for place in (0.0, 0.25, 1.0):
        assert scale.position(scale.value(place)) == pytest.approx(place, abs=1e-12)
    edges = scale.edges(7)
    assert edges[0] == scale.low and edges[-1] == scale.high
    assert [scale.position(edge) for edge in edges] == pytest.approx(np.linspace(0, 1, 8), abs=1e-12)


def test_the_x_axis_of_a_growing_run_seldom_changes():
    """Every change of the axis moves all dots, and so sends the whole chart."""
    ends = {picture(line(np.ones(count)), width=40, height=8).x.high for count in range(500, 600)}
    assert len(ends) <= 3


# -- smoothing ---------------------------------------------------------------------------------------------------------


def brute_smoothing(values, weight):
    above = below = 0.0
    found = []
    for value in values:
        above, below = weight * above, weight * below
        if math.isfinite(value):
            above, below = above + value, below + 1
        found.append(above / below if math.isfinite(value) else math.nan)
    return found


@pytest.mark.parametrize("weight", [0.6, 0.99, 0.9999])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 5000, 2**15 + 3])
def test_smoothing_is_the_weighted_mean_of_the_past(weight, count):
    rng = np.random.default_rng(3)
    values = rng.normal(10, 3, count)
    values[rng.integers(0, count, count // 10)] = np.nan
    found = exponential(values, weight)
    np.testing.assert_allclose(found, brute_smoothing(values, weight), rtol=1e-10)


def test_smoothing_of_a_constant_is_that_constant_from_the_first_value_on():
    found = exponential(np.full(200, 4.2), 0.99)
    np.testing.assert_allclose(found, 4.2, rtol=1e-12)


def test_smoothing_on_a_log_axis_is_a_geometric_mean():
    """1, 100 with weights w, 1 over w + 1: exp of the mean of the logarithms."""
    found = exponential(np.array([1.0, 100.0, -5.0]), 0.5, log=True)
    np.testing.assert_allclose(found[:2], [1.0, 100 ** (1 / 1.5)], rtol=1e-12)
    assert np.isnan(found[2])


# -- curves -------------------------------------------------------------------------------------------------------


def test_values_a_log_axis_leaves_out_are_counted():
    values = np.array([1.0, -1.0, 0.0, 5.0, np.nan, -2.0])
    for count in (1, 2, 4, 6):
        curve = Curve(line(values[:count]))
        shown = np.where(values[:count] > 0, values[:count], np.nan)
        np.testing.assert_array_equal(curve.values(True), shown)
        assert curve.left_out(True) == (values[:count] <= 0).sum()
        assert curve.left_out(False) == 0 and curve.values(False) is curve.y


def test_the_same_arrays_are_no_other_curve_but_in_other_looks():
    one = line([1, 2, 3])
    assert Curve(one).is_of(ChartLine("run", one.x, one.y), False)
    assert not Curve(one).is_of(ChartLine("run", one.x, one.y, colour=2), False)
    assert not Curve(one).is_of(ChartLine("run", one.x, one.y.copy()), False)


def test_records_from_strangers_are_put_in_order():
    x, y = [3, 1, np.nan, 2, np.inf], [30, 10, 5, np.inf, 7]
    curve = Curve(line(y, x))
    assert curve.x.tolist() == [1, 2, 3]
    assert curve.y[[0, 2]].tolist() == [10, 30] and np.isnan(curve.y[1])


@pytest.mark.parametrize(("x", "index"), [(-9, 0), (0.4, 0), (0.6, 1), (1.0, 2), (99, 3)])
def test_the_nearest_record_is_the_last_of_those_that_are_as_near(x, index):
    assert Curve(line([5, 6, 7, 8], [0, 1, 1, 4])).nearest(x) == index


# -- view --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("factor", [0.5, 3.0])
@pytest.mark.parametrize("at", [10.0, 40.0, 100.0])
def test_zooming_keeps_the_point_under_the_pointer(at, factor, log):
    before = AxisScale(10.0, 100.0, log)
    after = AxisScale.between(zoomed(before.ends, before.position(at), factor), log)
    assert after.position(at) == pytest.approx(before.position(at), abs=1e-9)
    lengths = [end - start for start, end in (before.ends, after.ends)]
    assert lengths[1] == pytest.approx(factor * lengths[0])


def test_zooming_out_to_everything_follows_the_data_again():
    view = View().zoom_x(0.5, 0.5, (0, 100), (0, 100))
    assert view.x == (25, 75)
    assert view.zoom_x(0.5, 2.5, view.x, (0, 100)).x is None


def test_panning_past_the_data_keeps_some_of_it_in_sight():
    view = View(x=(20.0, 40.0))
    for _ in range(100):
        view = view.pan_x(0.5, view.x, (0, 100))
    assert view.x == pytest.approx((98, 118))
    for _ in range(100):
        view = view.pan_x(-0.5, view.x, (0, 100))
    assert view.x == pytest.approx((-18, 2))


def test_zooming_in_has_an_end():
    view = View(x=(0.0, 50.0))
    for _ in range(200):
        view = view.zoom_x(0.6, 0.5, view.x, (0, 100))
    assert view.x is not None and view.x[0] < view.x[1]
    assert picture(line(np.arange(101)), view=view).x is not None


def test_a_following_view_ends_at_the_newest_and_moves_in_steps():
    view = View(x=(10.0, 30.0)).follow((0, 100))
    ends = [view.shown_x((0, 200), newest) for newest in range(100, 120)]
    assert all(high - low == pytest.approx(20) for low, high in ends)
    assert all(newest <= high < newest + 2 for newest, (_, high) in zip(range(100, 120), ends, strict=True))
    assert sum(a != b for a, b in pairwise(ends)) <= 10


def test_extreme_ranges_stay_finite():
    assert zoomed((1.0, 1.0 + 1e-15), 0.0, 0.5) == (1.0, 1.0 + 1e-15)
    assert usable(panned((1e308, 1.7e308), 5), log=False) is None
    assert kept((0.0, 50.0), (0.0, 0.0)) is None
    assert usable(zoomed((-300.0, 300.0), 0.5, 10), log=True) is None


# -- whole pictures ----------------------------------------------------------------------------------------------------


def test_a_rising_line_rises():
    """Column by column, the lowest dot of y = x never falls, and it goes from the bottom left to the top right."""
    rows = plot_of(picture(line(np.arange(1001)), width=60, height=20))
    lowest = [max(r for r, row in enumerate(rows) if row[c : c + 1] in BRAILLE) for c in range(len(rows[0].rstrip()))]
    assert lowest == sorted(lowest, reverse=True)
    assert lowest[0] == len(rows) - 1 and lowest[-1] == 0


@pytest.mark.parametrize("slope", [1, -1])
def test_lines_are_thin(slope):
    """A straight line of 45 degrees has one dot in each column."""
    spans = decimate(np.array([-1.0, 9.0]), np.array([4.0 - 5 * slope, 4.0 + 5 * slope]), np.linspace(0, 8, 9))
    dots = frame.dots_of(spans, AxisScale(0.0, 8.0), 2)
    assert dots.sum(axis=0).tolist() == [1] * 8


def test_ticks_of_a_log_axis_stand_beside_their_values():
    found = picture(line([0.01, 1.0, 100.0]), log_y=True)
    rows = found.frame.text().split("\n")
    for value in ("0.01", "1", "100"):
        assert rows[found.row_of(float(value))][: found.left].strip() == value


@pytest.mark.parametrize("smooth", [0.0, 0.9])
def test_overlays_are_told_apart_without_colour(smooth):
    rng = np.random.default_rng(0)
    runs = [line(k + rng.normal(0, 0.05, 500), label=f"r{k}", colour=k) for k in range(6)]
    found = picture(*runs, smoothing=smooth)
    plot = plot_of(found)
    levels = []
    for mark in MARKERS:
        rows = [number for number, row in enumerate(plot) if mark in row]
        assert rows, f"no {mark} on its line"
        levels.append(sum(rows) / len(rows))
    assert levels == sorted(levels, reverse=True)  # each on its own line, the sixth is the highest
    head = "\n".join(found.frame.text().split("\n")[: found.top])
    assert all(f"{mark} r{k}" in head for k, mark in enumerate(MARKERS))


def test_two_lines_with_the_same_values_are_both_seen():
    plot = "".join(plot_of(picture(line([1, 2] * 200, label="a"), line([1, 2] * 200, label="b", colour=1))))
    assert MARKERS[0] in plot and MARKERS[1] in plot


def test_raw_values_stay_behind_the_smoothed_line():
    y = np.ones(2000)
    y[1000] = 100.0
    found = picture(line(y), smoothing=0.99)
    top = found.frame.roles[found.top, found.left :]
    chars = found.frame.chars[found.top, found.left :]
    assert {int(role) for role, char in zip(top, chars, strict=True) if char in BRAILLE} == {frame.DIMMED + 0}
    assert (found.frame.roles == frame.SERIES + 0).any()


@pytest.mark.parametrize(
    ("y", "log", "said"),
    [
        ([], False, "no data yet"),
        ([np.nan, np.nan], False, "no finite values"),
        ([np.inf], False, "no finite values"),
        ([-1.0, 0.0], True, "nothing above 0 for a log axis"),
    ],
)
def test_an_empty_plot_says_why(y, log, said):
    assert said in picture(line(y), log_y=log).frame.text()


def test_no_lines_at_all():
    assert "no data yet" in picture().frame.text()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[3.0], [3.0] * 50, [3.0, np.nan], [1e-320], [1e308, 1e-308]])
def test_single_and_constant_values_are_drawn(y, log):
    plot = "".join(plot_of(picture(line(y), log_y=log)))
    assert any(char in BRAILLE or char == MARKERS[0] for char in plot)


def test_a_log_axis_says_how_many_values_it_leaves_out():
    found = picture(line([1, 0, -2, 10, 100] * 40), log_y=True)
    assert "80 points <= 0 hidden" in found.frame.text()
    assert "left out" not in picture(line([1, 0, -2, 10, 100] * 40)).frame.text()


def test_steps_at_zero_do_not_hide_a_log_x_axis():
    found = picture(line([5, 4, 3, 2], [0, 1, 10, 100]), log_x=True)
    assert found.x == AxisScale(1, 100, log=True)
    assert [label for label in ("1", "10", "100") if label in found.frame.text().split("\n")[-1].split()]


def test_the_cursor_tells_the_values_of_the_nearest_records():
    a, b = line([1, 2, 3, 4], [0, 10, 20, 30], label="a"), line([10, 20], [0, 12], label="b", colour=1)
    text = picture(a, b, cursor=11.0).frame.text()
    assert "step 11" in text and "2.000" in text and "20.00" in text
    beyond = picture(a, b, cursor=29.0).frame.text()  # b ends long before
    assert "4.000" in beyond and "20.00" not in beyond and "–" in beyond


def test_the_title_tells_the_last_value():
    assert "meta-loss  nan" in picture(line([1, 0.5, 0.25, np.nan]), title="meta-loss").frame.text()


def test_a_time_axis_shows_times_and_lines_without_them_are_left_out():
    timed = line([1, 2, 3], label="a", times=np.array([0.0, 3600.0, 7200.0]))
    found = picture(timed, line([9, 9, 9], label="b"), by_time=True)
    assert "1h" in found.frame.text().split("\n")[-1] and found.y.high < 9


def test_points_have_intervals_and_no_line():
    dots = line([1.0, 2.0, 3.0], [0, 5, 10], errors=np.array([0.2, 1.0, np.nan]))
    found = picture(dots, points_only=True)
    plot = plot_of(found)
    assert "".join(plot).count(MARKERS[0]) == 3
    columns = {c for row in plot for c, char in enumerate(row) if char in BRAILLE}
    assert len(columns) == 2  # of the two points that have an interval
    low, high = found.row_of(1.0), found.row_of(3.0)
    stem = [r for r in range(found.height + found.top) if found.frame.chars[r, found.column_of(5.0)] in BRAILLE]
    assert min(stem) == high and max(stem) == low


def test_very_many_points_are_dots_and_each_is_seen():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 1, 100_000))
    y = np.where(np.arange(100_000) == 70_000, 40.0, rng.uniform(0, 1, 100_000))
    found = picture(line(y, x), points_only=True)
    assert found.frame.chars[found.row_of(40.0), found.column_of(x[70_000])] in BRAILLE
    assert MARKERS[0] not in "".join(plot_of(found))


def test_intervals_at_one_place_stand_beside_each_other():
    runs = [line([5.0, 6.0], [0, 10], label=str(k), colour=k, errors=np.array([2.0, 2.0])) for k in range(3)]
    found = picture(*runs, points_only=True)
    row = found.frame.chars[found.row_of(5.0)].tolist()
    middle = found.column_of(0.0)
    assert row[middle : middle + 2] == list(MARKERS[1:3])
    stems = found.frame.roles[found.row_of(6.5), middle : middle + 2].tolist()
    assert stems == [frame.DIMMED + 1, frame.DIMMED + 2]


def test_intervals_that_reach_below_zero_end_at_a_log_axis():
    found = picture(line([1.0, 10.0], errors=np.array([2.0, 1.0])), points_only=True, log_y=True)
    assert "".join(plot_of(found)).count(MARKERS[0]) == 2


def test_a_legend_that_does_not_fit_is_left_out():
    entries = [LegendEntry("●", f"a long name {k}", "0.1234", 16 + k) for k in range(6)]
    wide = marks.lay_out(entries, 200, 1)
    assert len(wide) == 1 and width_of(wide[0]) <= 200
    assert [len(marks.lay_out(entries, 80, rows)) for rows in (1, 2, 3)] == [1, 2, 2]
    assert all(width_of(row) <= 80 for row in marks.lay_out(entries, 80, 3))
    assert marks.lay_out(entries, 20, 1) == [] and marks.lay_out(entries, 80, 0) == []


@pytest.mark.parametrize("width", [1, 2, 5, 9, 14, 30, 80, 200])
def test_every_size_can_be_painted(width):
    runs = [line(np.arange(50.0), label=f"run 日本 {k}", colour=k) for k in range(3)]
    for height in (1, 2, 3, 4, 6, 9, 24, 60):
        found = picture(*runs, width=width, height=height, title="meta-loss", cursor=20.0, smoothing=0.5, log_y=True)
        assert found.frame.chars.shape == (height, width)
        assert all(marks.cell_len("".join(row)) == width for row in found.frame.chars.tolist())


def test_hostile_labels_are_plain_text():
    text = picture(line([1, 2], label="[red]\x1b[31mx\n\u202e"), line([1, 2], label="b", colour=1)).frame.text()
    assert "\x1b" not in text and "\u202e" not in text and "[red]" in text


def test_frames_tell_what_has_changed():
    before, after = Frame(10, 3), Frame(10, 3)
    after.put(4, 1, "ab", frame.TITLE)
    after.roles[2, :] = frame.TITLE  # blanks have no looks
    assert list(after.changes(before)) == [(1, 4, 6)]
    assert list(after.runs(1)) == [("    ab    ", frame.TITLE)]


def test_a_million_records_are_redrawn_at_once():
    rng = np.random.default_rng(0)
    curves = [Curve(line(rng.lognormal(size=10**6), label=str(k), colour=k)) for k in range(3)]
    scene = Scene(200, 60, curves, title="loss", log_y=True)
    paint(scene)
    taken = []
    for cursor in (1e5, 2e5, 3e5):
        start = time.process_time()
        scene.cursor, scene.view = cursor, View(x=(cursor, 9e5))
        paint(scene)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1


# -- heat --------------------------------------------------------------------------------------------------------------


def test_heat_puts_the_first_row_at_the_bottom_and_the_first_column_left():
    found = heat_map.shares(np.array([[0.0, 1.0], [2.0, 3.0]]), 2, 2, (0.0, 4.0))
    np.testing.assert_allclose(found, [[0.5, 0.75], [0.0, 0.25]])


def test_heat_between_points_is_straight_and_cut_at_the_bounds():
    found = heat_map.shares(np.array([[0.0, 4.0]] * 2), 5, 2, (1.0, 3.0))
    np.testing.assert_allclose(found[0], [0, 0, 0.5, 1, 1])
    logs = heat_map.shares(np.array([[1.0, 100.0]] * 2), 3, 2, (1.0, 100.0), log=True)
    np.testing.assert_allclose(logs[0], [0, 0.5, 1])


def test_heat_leaves_out_what_is_not_finite():
    found = heat_map.shares(np.array([[1.0, np.nan, 3.0]] * 2), 3, 2, (1.0, 3.0))
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2]]).all()
    assert (heat_map.steps(found)[:, 1] == heat_map.EMPTY).all()


def test_contours_run_between_the_bands():
    found = np.linspace(0, 0.999, 9)[None].repeat(3, axis=0)  # grows to the right: upright lines
    assert heat_map.contours(found, 3).tolist() == [[False, False, False, True, False, False, True, False, False]] * 3
    assert not heat_map.contours(np.full((4, 4), 0.3), 6).any()


# -- numbers from strangers --------------------------------------------------------------------------------------------


def strange(rng: np.random.Generator, count: int) -> np.ndarray:
    return [
        lambda: rng.normal(size=count),
        lambda: rng.lognormal(0, 200, count),
        lambda: np.full(count, rng.choice([0, -1, 5e-324, 1.7e308, -1.7e308])),
        lambda: rng.uniform(-1.7, 1.7, count) * 1e308,
        lambda: rng.choice([np.inf, -np.inf, np.nan, 0, 1, -5], count),
        lambda: np.arange(count) * 60.0,
    ][rng.integers(6)]()


def strange_range(rng: np.random.Generator) -> tuple[float, float] | None:
    return [None, (-5.0, 2000.0), (0.5, 21.0), (1e-12, 2e-12), (1e-300, 1e300), (-1e300, 1e300)][rng.integers(6)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(20))
def test_no_numbers_and_no_view_break_a_chart(seed):
    rng = np.random.default_rng(seed)
    lines = []
    for count in rng.choice([0, 1, 2, 10, 300], rng.integers(4)):
        x, y, times, errors = (strange(rng, count) for _ in range(4))
        lines.append(
            ChartLine("run", np.sort(x), y, times=times, errors=np.abs(errors) if rng.random() < 0.5 else None)
        )
    by_time, log_x, log_y, points = (bool(rng.random() < 0.4) for _ in range(4))
    view = View(strange_range(rng), strange_range(rng), bool(rng.random() < 0.3))
    size = {"width": int(rng.integers(1, 100)), "height": int(rng.integers(1, 40))}
    for _ in range(4):
        found = picture(
            *lines, **size, view=view, log_x=log_x, log_y=log_y, by_time=by_time, points_only=points,
            smoothing=float(rng.choice([0, 0.9])), cursor=float(rng.choice([0, 5, -3, 1e300])),
            unit=str(rng.choice(["", "percent", "bytes", "seconds"])),
        )  # fmt: skip
        if found.x is None or found.y is None:
            continue
        view = view.zoom_x(rng.random(), 0.5, found.x.ends, found.full_x).pan_x(0.3, found.x.ends, found.full_x)
        view = view.zoom_y(rng.random(), 2.0, found.y.ends)
        view = view.follow(found.full_x) if rng.random() < 0.3 else view


def test_labels_that_begin_alike_keep_what_tells_them_apart():
    names = ("simple-vanilla-s0", "simple-gsam-low-s0", "simple-sam-low-s0")
    entries = [marks.LegendEntry("●", name, "0.1234", 0) for name in names]
    narrow = "".join(text for row in marks.lay_out(entries, 46, 2) for text, _ in row)
    assert all(part in narrow for part in ("…vanilla", "…gsam-l", "…sam-lo")) and "simple" not in narrow
    assert "simple-gsam-low-s0" in "".join(text for row in marks.lay_out(entries, 200, 1) for text, _ in row)
    alone = marks.lay_out(entries[:1], 20, 1)
    assert "simple" in "".join(text for row in alone for text, _ in row)
