"""Charts on a screen: keys, mouse, what is sent to the terminal; metric panels and heat maps."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.pilot import Pilot
from tui.driving import Quick, run

from lreg_tui.charts.axes import View
from lreg_tui.charts.chart import Chart
from lreg_tui.charts.curve import ChartLine
from lreg_tui.charts.heat_map import HeatMap
from lreg_tui.runs.feed import Series
from lreg_tui.runs.metric_panel import MetricPanel, Panels
from lreg_tui.widgets import themes
from lreg_tui.widgets.themes import MARKERS

STEPS = np.arange(1001.0)


def line(label: str = "run", values: Any = STEPS, **more: Any) -> ChartLine:
    y = np.asarray(values, dtype=float)
    return ChartLine(label, np.arange(float(len(y))), y, **{"times": 2.0 * np.arange(len(y)), **more})


class Host(App[None]):
    """Any widgets side by side, as a screen hosts them: cursors are kept together."""

    def __init__(self, *widgets: Any, page: bool = False) -> None:
        super().__init__()
        self.widgets = widgets
        self.page = page
        self.moved: list[float | None] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll() if self.page else Horizontal():
            yield from self.widgets

    def on_mount(self) -> None:
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = themes.DEFAULT

        for chart in self.query(Chart):
            chart.sisters = lambda chart=chart: [other for other in self.query(Chart) if other is not chart]
            self.watch(chart, "cursor_x", lambda x: self.moved.append(x), init=False)


@contextlib.asynccontextmanager
async def shown(*widgets: Any, size: tuple[int, int] = (80, 24), page: bool = False) -> AsyncIterator[Pilot[None]]:
    app = Host(*widgets, page=page)
    async with app.run_test(size=size):
        pilot = Quick(app)
        await pilot.pause()
        yield pilot


def screen_text(pilot: Pilot[None]) -> str:
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


def with_chart(check: Callable[[Chart, Pilot[None]], Any], *, lines: Any = None, **more: Any) -> None:
    """Show one focused chart of y = x and check something of it."""

    async def drive() -> None:
        chart = Chart("loss", **more)
        async with shown(chart) as pilot:
            chart.lines = [line()] if lines is None else lines
            chart.focus()
            await pilot.pause()
            await check(chart, pilot)

    run(drive())


def x_range(chart: Chart) -> tuple[float, float]:
    assert chart.picture.x is not None
    return chart.picture.x.low, chart.picture.x.high


@pytest.fixture
def refreshed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The regions of every refresh that a chart asks for."""
    seen: list[tuple[Any, ...]] = []
    real = Chart.refresh
    monkeypatch.setattr(Chart, "refresh", lambda self, *given, **more: seen.append(given) or real(self, *given, **more))
    return seen


# -- keys --------------------------------------------------------------------------------------------------------------


def test_plus_and_minus_zoom_around_the_middle_and_back_to_everything():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        assert x_range(chart) == (0, 1000)
        await pilot.press("plus")
        low, high = x_range(chart)
        assert (low + high) / 2 == pytest.approx(500) and high - low == pytest.approx(600)
        await pilot.press("minus")
        assert chart.view.x is None and x_range(chart) == (0, 1000)

    with_chart(check)


def test_arrows_pan_and_home_shows_everything_again():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("plus", "plus", "right")
        low, high = x_range(chart)
        assert (low + high) / 2 > 520
        await pilot.press("left", "left")
        assert sum(x_range(chart)) / 2 < 480
        y = chart.picture.y
        await pilot.press("up")
        assert chart.picture.y.high > y.high and chart.view.y is not None
        await pilot.press("0")
        assert x_range(chart) == (0, 1000) and chart.view.y is None

    with_chart(check)


def test_shift_arrows_zoom_the_y_axis():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("shift+up")
        assert chart.picture.y.high - chart.picture.y.low == pytest.approx(600)

    with_chart(check)


def test_the_key_f_follows_the_newest_records():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        assert x_range(chart) == (750, 1000)
        chart.lines = [line(values=np.arange(1501.0))]
        await pilot.pause()
        assert x_range(chart) == (1250, 1500)
        await pilot.press("left")  # looking back ends it
        stays = x_range(chart)
        chart.lines = [line(values=np.arange(2001.0))]
        await pilot.pause()
        assert x_range(chart) == stays and not chart.view.following

    with_chart(check)


def test_the_key_l_shows_original_values_on_a_log_axis():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        assert "1000" in screen_text(pilot)
        await pilot.press("l")
        await pilot.pause()
        text = screen_text(pilot)
        labels = [row[: chart.picture.left].strip() for row in text.split("\n")]
        assert "log y" in text and [label for label in labels if label.isdigit()] == ["1000", "100", "10", "1"]

    with_chart(check)


def test_the_key_x_goes_through_the_axes():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("x")
        await pilot.pause()
        assert chart.log_x and "log x" in screen_text(pilot)
        await pilot.press("x")
        await pilot.pause()
        assert chart.x_axis == "time" and not chart.log_x and "30m" in screen_text(pilot)  # 1000 steps of 2 s
        await pilot.press("x")
        assert chart.x_axis == "step" and not chart.log_x

    with_chart(check)


def test_a_chart_without_times_has_no_time_axis():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("x", "x")
        assert chart.x_axis == "step" and not chart.log_x

    with_chart(check, lines=[ChartLine("a", STEPS, STEPS)])


def test_the_key_s_goes_through_the_weights_and_back_to_none():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        seen = []
        for _ in range(5):
            await pilot.press("tilde")
            seen.append(chart.smoothing)
        assert seen == [0.6, 0.9, 0.99, 0.999, 0.0]

    with_chart(check)


# -- cursor ------------------------------------------------------------------------------------------------------------


def test_the_cursor_steps_over_records_and_tells_their_values():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("full_stop", "full_stop", "full_stop")
        assert chart.cursor_x == 100.0 and pilot.app.moved == [0.0, 50.0, 100.0]
        await pilot.pause()
        assert "step 100" in screen_text(pilot) and "700.0" in screen_text(pilot)
        await pilot.press("comma", "escape")
        assert pilot.app.moved[-2:] == [50.0, None] and chart.cursor_x is None

    with_chart(check, lines=[ChartLine("a", STEPS[::50], STEPS[::50] * 7)])


def test_the_view_comes_along_with_the_cursor():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        chart.view = View(x=(100.0, 200.0))
        await pilot.pause()
        await pilot.press("full_stop", *["greater_than_sign"] * 12)
        assert chart.cursor_x > 200 and x_range(chart)[0] < chart.cursor_x < x_range(chart)[1]

    with_chart(check)


def test_charts_share_a_cursor():
    async def drive() -> None:
        left, right = Chart("a"), Chart("b")
        async with shown(left, right) as pilot:
            left.lines, right.lines = [line()], [line(values=3 * STEPS)]
            left.focus()
            await pilot.press("full_stop", "greater_than_sign")
            await pilot.pause()
            assert left.cursor_x == right.cursor_x != 0
            assert len(pilot.app.moved) == 4  # two steps of two charts
            assert f"{3 * left.cursor_x:.1f}" in screen_text(pilot)

    run(drive())


# -- mouse -------------------------------------------------------------------------------------------------------------


def wheel(chart: Chart, pilot: Pilot[None], offset: tuple[int, int], event: str, **more: Any) -> Any:
    from textual import events

    return pilot._post_mouse_events([getattr(events, event)], chart, offset=offset, button=0, **more)


def test_the_wheel_zooms_at_the_pointer():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        column = 60
        under = chart.picture.x_at(column)
        await wheel(chart, pilot, (column, 10), "MouseScrollUp")
        assert chart.picture.x_at(column) == pytest.approx(under)
        assert x_range(chart)[1] - x_range(chart)[0] == pytest.approx(600)
        await wheel(chart, pilot, (column, 10), "MouseScrollDown")
        assert chart.view.x is None

    with_chart(check)


def test_ctrl_and_wheel_zoom_the_y_axis_at_the_pointer():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        row = 6
        before = chart.picture.y
        place = (chart.picture.top + chart.picture.height - row - 0.5) / chart.picture.height
        await wheel(chart, pilot, (30, row), "MouseScrollUp", control=True)
        assert chart.picture.y.value(place) == pytest.approx(before.value(place))
        assert chart.view.x is None and chart.view.y is not None

    with_chart(check)


def test_on_a_page_that_scrolls_the_wheel_scrolls_until_a_chart_has_the_focus():
    async def drive() -> None:
        charts = [Chart(str(number)) for number in range(4)]
        for chart in charts:
            chart.styles.height = 15
        async with shown(*charts, page=True) as pilot:
            charts[0].lines = [line()]
            pilot.app.set_focus(None)
            await pilot.pause()
            await wheel(charts[0], pilot, (40, 8), "MouseScrollDown")
            await wheel(charts[0], pilot, (40, 8), "MouseScrollUp")
            assert charts[0].view.x is None
            charts[0].focus()
            await pilot.pause()
            await wheel(charts[0], pilot, (40, 8), "MouseScrollUp")
            assert charts[0].view.x is not None

    run(drive())


def test_dragging_pans_and_a_double_click_shows_everything():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.press("plus", "plus")
        low, high = x_range(chart)
        await pilot.mouse_down(chart, offset=(50, 10))
        await pilot.hover(chart, offset=(40, 10))
        await pilot.mouse_up(chart, offset=(40, 10))
        moved = 10 / chart.picture.width * (high - low)
        assert x_range(chart) == pytest.approx((low + moved, high + moved))
        await pilot.hover(chart, offset=(20, 10))  # the button is up
        assert x_range(chart) == pytest.approx((low + moved, high + moved))
        await pilot.click(chart, offset=(40, 10), times=2)
        assert chart.view.x is None

    with_chart(check)


def test_the_pointer_moves_the_cursor_and_takes_it_along_unless_clicked():
    async def drive() -> None:
        left, right = Chart("a"), HeatMap()
        async with shown(left, right) as pilot:
            left.lines = [line()]
            await pilot.pause()
            await pilot.hover(left, offset=(20, 10))
            assert left.cursor_x == round(left.picture.x_at(20))
            await pilot.hover(right, offset=(5, 5))
            await pilot.pause()
            assert left.cursor_x is None and pilot.app.moved[-1] is None
            await pilot.click(left, offset=(25, 10))
            clicked = left.cursor_x
            await pilot.hover(right, offset=(5, 5))
            await pilot.pause()
            assert left.cursor_x == clicked is not None

    run(drive())


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_when_nothing_changes(refreshed: list[tuple[Any, ...]]):
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        refreshed.clear()
        chart.lines = [line()]  # new arrays, the same values
        chart.cursor_x, chart.title = None, "loss"
        await pilot.pause()
        await pilot.press("f", "0", "0")
        await pilot.pause()
        assert len(refreshed) == 2  # there and back

    with_chart(check)


def test_only_the_lines_that_change_are_sent(refreshed: list[tuple[Any, ...]]):
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        refreshed.clear()
        chart.lines = [line(values=np.append(STEPS[:901], [450.0] * 10))]
        await pilot.pause()
        refreshed.clear()
        chart.lines = [line(values=np.append(STEPS[:901], [450.0] * 30))]
        await pilot.pause()
        rows = {region.y for regions in refreshed for region in regions}
        middle = chart.picture.row_of(450.0)
        assert rows == {middle}  # where the new records are

    with_chart(check)


def test_several_changes_are_painted_once(refreshed: list[tuple[Any, ...]]):
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        refreshed.clear()
        chart.log_y, chart.title, chart.smoothing, chart.lines = True, "other", 0.9, [line(values=STEPS + 1)]
        await pilot.pause()
        assert len(refreshed) == 1

    with_chart(check)


def test_a_hidden_chart_is_up_to_date_when_it_is_shown_again():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        chart.display = False
        await pilot.pause()
        chart.lines, chart.title = [line(values=5 * STEPS)], "other"
        await pilot.pause()
        chart.display = True
        await pilot.pause()
        assert "other  5000" in screen_text(pilot)

    with_chart(check)


def test_a_chart_follows_its_size():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(120, 40)
        assert chart.picture.frame.shape == (40, 120) and "loss  1000" in screen_text(pilot)
        await pilot.resize_terminal(20, 5)
        assert chart.picture.frame.shape == (5, 20)

    with_chart(check)


def test_another_theme_has_other_colours():
    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        before = {segment.style.bgcolor for segment in chart.render_line(10)}
        pilot.app.theme = "lreg-light"
        await pilot.pause()
        await pilot.pause()
        assert {segment.style.bgcolor for segment in chart.render_line(10)}.isdisjoint(before)
        shown = {segment.style.bgcolor for segment in pilot.app.screen._compositor.render_strips()[10]}
        assert shown.isdisjoint(before)

    with_chart(check)


@pytest.mark.parametrize("theme", themes.THEMES, ids=lambda theme: theme.name)
def test_lines_stand_out_from_every_background(theme: Any):
    from textual.color import Color

    from lreg_tui.widgets.themes import CONTRAST, contrast, visible

    background = Color.parse(theme.background)
    for colour in themes.SERIES:
        assert contrast(visible(Color.parse(colour), background), background) >= CONTRAST


def test_without_colours_runs_are_told_apart_by_their_marks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def check(chart: Chart, pilot: Pilot[None]) -> None:
        text = screen_text(pilot)
        assert pilot.app.no_color and all(text.count(mark) > 1 for mark in MARKERS[:3])

    with_chart(check, lines=[line(f"r{k}", np.full(500, float(k)), colour=k) for k in range(3)])


# -- panels ------------------------------------------------------------------------------------------------------------


def test_panels_share_the_x_axis_and_each_keeps_its_own_y_axis():
    async def drive() -> None:
        panels, source = Panels(["meta_loss", "test_accuracy"]), Source()
        for metric in panels.metrics:
            source.put("a", metric, [4, 2, 1])
        async with shown(panels) as pilot:
            panels.show_runs([("a", "alpha")])
            panels.update_from(source)
            first, second = (panel.chart for panel in panels.all)
            first.focus()
            for axis in (("step", True), ("time", False), ("step", False)):
                await pilot.press("x")
                await pilot.pause()
                assert (first.x_axis, first.log_x) == (second.x_axis, second.log_x) == axis
            await pilot.press("l")
            await pilot.pause()
            assert not first.log_y and not second.log_y

    run(drive())


# -- metric panels -----------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """A feed with what a test puts in."""

    known: dict[tuple[str, str], Series] = field(default_factory=dict)

    def put(self, run_id: str, metric: str, values: Any) -> None:
        count = np.arange(float(len(values)))
        self.known[run_id, metric] = Series(count, 60 + 60 * count, np.asarray(values, dtype=float))

    def series(self, run_id: str, metric: str) -> Series | None:
        return self.known.get((run_id, metric))


def with_panel(check: Callable[[MetricPanel, Source, Pilot[None]], Any], metric: str = "meta_loss") -> None:
    async def drive() -> None:
        panel, source = MetricPanel(metric), Source()
        source.put("a", "meta_loss", [4, 2, 1])
        source.put("a", "test_accuracy", [0.5, 0.75])
        source.put("b", "meta_loss", [3, 2])
        async with shown(panel) as pilot:
            panel.runs = [("a", "alpha"), ("b", "beta")]
            panel.update_from(source)
            await pilot.pause()
            await check(panel, source, pilot)

    run(drive())


def test_a_panel_shows_its_metric_of_the_chosen_runs():
    async def check(panel: MetricPanel, source: Source, pilot: Pilot[None]) -> None:
        text = screen_text(pilot)
        assert "meta-loss" in text and f"{MARKERS[0]} alpha" in text and f"{MARKERS[1]} beta" in text
        panel.chart.view = View(y=(3.0, 4.0))
        panel.metric = "test_accuracy"
        await pilot.pause()
        text = screen_text(pilot)
        assert "test accuracy" in text and "75.0%" in text and "60%" in text
        panel.runs = []
        await pilot.pause()
        assert "no data yet" in screen_text(pilot)

    with_panel(check)


def test_a_panel_asks_for_nothing_to_be_drawn_while_the_feed_has_nothing_new(refreshed: list[tuple[Any, ...]]):
    async def check(panel: MetricPanel, source: Source, pilot: Pilot[None]) -> None:
        refreshed.clear()
        lines = panel.chart.lines
        panel.update_from(source)
        await pilot.pause()
        assert panel.chart.lines is lines and not refreshed
        source.put("b", "meta_loss", [3, 2, 0.5])
        panel.update_from(source)
        await pilot.pause()
        assert len(refreshed) == 1

    with_panel(check)


def test_a_panel_counts_time_from_the_first_record_of_the_run():
    async def check(panel: MetricPanel, source: Source, pilot: Pilot[None]) -> None:
        panel.chart.x_axis = "time"
        assert panel.chart.curves[0].x.tolist() == [60, 120, 180]

    with_panel(check)


def test_a_panel_waits_without_numpy():
    """Its import would hold up the console's first paint."""
    code = """
import asyncio, sys
from textual.app import App
from lreg_tui.charts.heat_map import HeatMap
from lreg_tui.runs.metric_panel import MetricPanel, Panels

class Host(App):
    def compose(self):
        yield MetricPanel("meta_loss")
        yield HeatMap()

async def drive():
    async with Host().run_test() as pilot:
        await pilot.pause()
        assert any("no data yet" in strip.text for strip in pilot.app.screen._compositor.render_strips())

asyncio.run(drive())
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# -- heat maps ---------------------------------------------------------------------------------------------------------

BOWL = np.add.outer(np.linspace(-1, 1, 9) ** 2, np.linspace(-1, 1, 9) ** 2)


def with_map(check: Callable[[HeatMap, Pilot[None]], Any]) -> None:
    async def drive() -> None:
        heat = HeatMap("[b]slice")
        async with shown(heat, size=(60, 20)) as pilot:
            heat.show(BOWL, bounds=(0.0, 2.0))
            await pilot.pause()
            await check(heat, pilot)

    run(drive())


def test_a_heat_map_shows_its_title_scale_and_the_value_under_the_pointer():
    async def check(heat: HeatMap, pilot: Pilot[None]) -> None:
        text = screen_text(pilot)
        assert "[b]slice" in text and text.rstrip().split("\n")[-1].split() == ["0", "▀" * 24, "2", "±1"]
        await pilot.hover(heat, offset=(0, 1))
        await pilot.pause()
        assert "2.000" in screen_text(pilot).split("\n")[0]  # the corner of the bowl

    with_map(check)


def test_a_map_of_what_diverged_everywhere_says_so():
    async def check(heat: HeatMap, pilot: Pilot[None]) -> None:
        heat.show(np.full((9, 9), np.nan))
        await pilot.pause()
        assert "no finite values" in screen_text(pilot)

    with_map(check)


def test_maps_with_the_same_bounds_have_the_same_colours():
    async def check(heat: HeatMap, pilot: Pilot[None]) -> None:
        def corner() -> Any:
            return next(iter(heat.render_line(1))).style.color

        before = corner()
        heat.show(BOWL / 2, bounds=(0.0, 2.0))
        assert corner() != before
        heat.show(BOWL / 2, bounds=(0.0, 1.0))
        assert corner() == before

    with_map(check)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((3, 3), np.nan), "no finite values"),
        (np.zeros((0, 0)), "no data yet"),
        (np.array([1.0, 2.0]), "no data yet"),
        (-np.ones((2, 2)), "nothing above 0 for a log scale"),
    ],
    ids=str,
)
def test_a_heat_map_of_nothing_says_so(values: Any, told: str):
    async def check(heat: HeatMap, pilot: Pilot[None]) -> None:
        heat.show(values, log=True)
        await pilot.pause()
        assert told in screen_text(pilot)

    with_map(check)


def test_a_heat_map_without_colours_has_shades(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def check(heat: HeatMap, pilot: Pilot[None]) -> None:
        plot = screen_text(pilot).split("\n")[1:-1]
        assert plot[0][0] == "█" and plot[len(plot) // 2][len(plot) - 1] == "·" and "▀" not in "".join(plot)

    with_map(check)


class Recorded:
    """What a panel reads: the same curve of every run."""

    def series(self, run_id: str, metric: str) -> Series:
        return Series(STEPS, STEPS, np.sin(STEPS))


def test_a_zoom_belongs_to_the_runs_and_its_y_axis_to_the_metric():
    async def steps() -> None:
        panel = MetricPanel("meta_loss", [("a", "a")])
        async with shown(panel) as pilot:
            panel.update_from(Recorded())
            panel.chart.focus()
            zoomed = ("plus", "plus", "full_stop", "shift+up")
            for change in ({"runs": (("b", "b"),)}, {"runs": (("b", "b"), ("c", "c"))}):
                await pilot.press(*zoomed)
                assert panel.chart.view != View() and panel.chart.cursor_x is not None
                for name, value in change.items():
                    setattr(panel, name, value)
                assert panel.chart.view == View() and panel.chart.cursor_x is None
            await pilot.press(*zoomed)
            panel.runs = (("b", "renamed"), ("c", "c"))  # the same runs
            panel.update_from(Recorded())
            assert panel.chart.view != View()
            steps_in_view = panel.chart.view.x
            panel.metric = "sharpness"  # of which the same steps stay in view, by its own axis
            assert panel.chart.view.x == steps_in_view is not None and panel.chart.view.y is None
            assert panel.chart.cursor_x is None

    run(steps())


@pytest.mark.parametrize(("spread", "log_x"), [(1, True), (97, False)])
def test_the_cursor_is_always_in_the_window(spread, log_x):
    async def steps() -> None:
        x = np.concatenate((STEPS[:600:spread], [990.0, 1000.0])) + 1
        chart = Chart(log_x=log_x)
        chart.lines = [ChartLine("run", x, np.sin(x))]
        async with shown(chart) as pilot:
            chart.focus()
            for first in ("comma", "full_stop", "less_than_sign", "greater_than_sign"):
                chart.view, chart.cursor_x = View(), None
                await pilot.press(*["plus"] * 6)
                for key in (first, "less_than_sign", "full_stop", "greater_than_sign", "left", first, "comma"):
                    await pilot.press(key)
                    if key != "left":
                        assert chart.cursor_x is not None and chart.picture.column_of(chart.cursor_x) is not None

    run(steps())


def test_the_scale_of_a_heat_map_is_whole_at_every_size():
    async def steps() -> None:
        heat = HeatMap("slice")
        async with shown(heat) as pilot:
            heat.show(np.outer(STEPS[:20] + 1.2345e-5, STEPS[:20] + 1), x=(-0.5, 0.5), y=(-0.5, 0.5), log=True)
            for columns, lines in ((80, 24), (36, 11), (30, 11), (200, 60), (12, 5)):
                await pilot.resize_terminal(columns, lines)
                (scale,) = [row for row in screen_text(pilot).split("\n") if row.startswith("1.23e-05")]
                assert len(scale.rstrip()) <= columns
                if columns >= 36:  # the narrowest map that landscapes are shown on
                    assert scale.split()[-4:] == ["▀" * scale.count("▀"), "380", "log", "±0.5"]

    run(steps())
