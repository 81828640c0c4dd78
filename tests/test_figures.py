"""Figures: that the numbers drawn are those measured, and that the files are sound whatever the runs are called."""

from __future__ import annotations

import math
import statistics
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from engine.base.errors import LregError
from engine.comparison import group_arms
from engine.evaluation.landscape import LandscapeSlice
from engine.evaluation.update_rule import describe
from engine.figures import Block, blocks, evaluated
from engine.figures.landscapes import LandscapePanel, landscapes
from engine.figures.meta_training import smoothed
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.reader import RunReader
from engine.runs.results import t_quantile
from engine.runs.writer import Run
from lreg_tui.figures import page
from lreg_tui.figures.axes import plain

HOSTILE = r"_a $\frac{1}{0}$ \$x_$ %n &<b>"
RADII = ("0.01", "0.05", "0.1")
SCALES = (0.5, 1.0, 2.0)


def level(meta_seed: int, seed: int) -> float:
    """What tells the optimizees apart."""
    return 1.0 + 0.1 * seed + 0.3 * meta_seed


def evaluation(factor: float = 1.0, meta_seed: int = 0, diverged: int | None = None, **facts) -> dict:
    seeds = []
    for seed in range(3):
        own = factor * level(meta_seed, seed) * (100.0 if seed == diverged else 1.0)
        marks = [
            {
                "inner_step": step,
                "train_loss": 10 * own / step,
                "test_accuracy": 1 - 0.1 * own,
                "sharpness": {radius: own * float(radius) for radius in RADII},
            }
            for step in (10, 100)
        ]
        curve = {"inner_step": [0, 1, 10, 100], "train_loss": [2.3, 2 * own, own, 0.1 * own]}
        seeds.append({"seed": seed, "diverged": seed == diverged, "curve": curve, "marks": marks})
    task = {"dataset": "mnist", "optimizee": "mlp", "batch_size": 128}
    usual = {"run": "r", "optimizer": "simple", "label": "simple (best)", "checkpoint": "best", "scale": 1.0}
    return {**usual, "task": task, "created": "2026-11-21T12:00:00Z", "seeds": seeds, **facts}


def make_run(folder, name: str, seed: int, penalty: bool, transfers: dict[str, dict]) -> RunReader:
    tables = {"optimizer": {"kind": "simple", "hidden": 3}, **({"penalty": {"sam": {}}} if penalty else {})}
    run = Run.create(folder, from_mapping({"name": name, "seed": seed, **tables}))
    phi = LEARNED_OPTIMIZERS.create("simple", hidden=3).init_phi(torch.Generator().manual_seed(seed))
    checkpoints.save(run.path / "checkpoint", "best", {f"frozen/{key}": value for key, value in phi.items()}, {})
    with run:
        run.append([{"step": step, "meta_loss": 2.0 + seed} for step in (1, 2, 3)])
        for file, found in transfers.items():
            run.write_transfer(file, found)
    return RunReader(run.path)


@pytest.fixture
def readers(tmp_path):
    """Two arms of two meta-seeds; the second has a penalty, half the sharpness and a seed that diverged."""
    untrained = {"label": "simple (untrained)", "checkpoint": None}
    found = []
    for seed in (0, 1):
        scaled = {f"x{scale}": evaluation(1 / scale, seed, scale=scale) for scale in SCALES}
        others = {
            "u": evaluation(3.0, seed, **untrained),
            "sgd": evaluation(2.0, optimizer="sgd", label="sgd", run=None),
        }
        found.append(make_run(tmp_path, f"vanilla-s{seed}", seed, False, {**scaled, **others}))
        own = {"best": evaluation(0.5, seed, diverged=2 if seed else None), "u": others["u"]}
        found.append(make_run(tmp_path, f"flat-s{seed}", seed, True, own))
    return found


def panel_of(readers, name: str, **choice):
    (block,) = blocks(evaluated(group_arms(readers), **choice), [name])
    assert block.figure == name and block.caption
    return block.panels[0] if len(block.panels) == 1 else block.panels


def by_label(items) -> dict:
    return {item.who.label: item for item in items}


def mean_of_means(*groups) -> float:
    return math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)


def test_the_caption_counts_meta_seeds_that_were_evaluated(readers):
    (both,) = blocks(evaluated(group_arms(readers)), ["curves"])
    for reader in (readers[2], readers[3]):
        for file in (reader.path / "transfer").iterdir():
            file.unlink()
    (one,) = blocks(evaluated(group_arms(readers)), ["curves"])
    assert "over meta-seeds (of two: from the one to the other)" in both.caption and "(one meta-seed)" in one.caption


VANILLA = mean_of_means([level(0, k) for k in range(3)], [level(1, k) for k in range(3)])
FLAT = 0.5 * mean_of_means([level(0, k) for k in range(3)], [level(1, k) for k in range(2)])  # without the diverged one


def test_learning_curves_are_means_over_meta_seeds_and_optimizees(readers):
    panel = panel_of(readers, "curves")
    lines = by_label(panel.lines)
    assert list(lines) == ["vanilla", "flat", "untrained", "sgd"]  # the reference first; equal untrained ones once
    assert panel.title == "mnist/mlp" and (panel.x.scale, panel.y.scale) == ("log", "log")
    assert lines["vanilla"].x == (1.0, 10.0, 100.0)  # 0 has no place on a logarithmic axis
    assert lines["vanilla"].y == pytest.approx([2 * VANILLA, VANILLA, 0.1 * VANILLA])
    assert lines["flat"].y == pytest.approx([2 * FLAT, FLAT, 0.1 * FLAT])
    for line in panel.lines:
        assert all(low < y < high for low, y, high in zip(line.low, line.y, line.high, strict=True))
    means = [math.fsum(level(seed, k) for k in range(3)) / 3 for seed in (0, 1)]
    assert (lines["vanilla"].low[1], lines["vanilla"].high[1]) == pytest.approx((min(means), max(means)))
    levels = [level(0, k) for k in range(3)]
    half = t_quantile(2) * statistics.stdev(levels) / math.sqrt(3)
    alone = by_label(panel_of(readers[:1], "curves").lines)["vanilla"]
    assert (alone.y[1] - alone.low[1], alone.high[1] - alone.y[1]) == pytest.approx((half, half))


def test_sharpness_is_drawn_against_every_radius(readers):
    lines = by_label(panel_of(readers, "sharpness").lines)
    assert lines["flat"].x == (0.01, 0.05, 0.1) and lines["flat"].bars
    assert lines["flat"].y == pytest.approx([FLAT * 0.01, FLAT * 0.05, FLAT * 0.1])


def test_accuracy_is_drawn_against_sharpness_with_the_optimizees_behind(readers):
    panel = panel_of(readers, "accuracy")
    flat = by_label(panel.points)["flat"]
    assert (panel.x.name, panel.x.radius, panel.y.name) == (
        "sharpness",
        "0.05",
        "test_accuracy",
    ) and panel.title == "mnist/mlp, 100 steps"
    assert (flat.x[0], flat.y[0]) == pytest.approx((FLAT * 0.05, 1 - 0.1 * FLAT))
    assert flat.x[1] < flat.x[0] < flat.x[2] and len(flat.cloud) == 5
    assert panel_of(readers, "accuracy", radius=0.1).x.radius == "0.1"


def test_the_frontier_goes_through_the_scaled_points_of_the_arm_without_penalty(readers):
    panel = panel_of(readers, "frontier", step=10)
    (line,) = panel.lines
    assert (line.who.label, line.notes) == ("vanilla", ("×0.5", "×1", "×2"))
    assert line.x == pytest.approx([VANILLA / scale for scale in SCALES])
    assert line.y == pytest.approx([VANILLA * 0.05 / scale for scale in SCALES])
    assert list(by_label(panel.points)) == ["flat", "untrained", "sgd"]


def test_a_frontier_is_dashed_beyond_its_best_scale(tmp_path):
    factors = {0.5: (2.0, 2.0), 1.0: (1.0, 1.0), 2.0: (1.5, 0.5), 4.0: (3.0, 0.2)}  # scale: train loss, sharpness
    files = {}
    for scale, (loss, rise) in factors.items():
        found = files[f"x{scale}"] = evaluation(rise, scale=scale)
        for seed in found["seeds"]:
            for mark in seed["marks"]:
                mark["train_loss"] *= loss / rise
    panel = panel_of([make_run(tmp_path, "vanilla", 0, False, files)], "frontier", step=10)
    regular, overshoot = panel.lines
    assert (regular.dash, regular.notes) == ("solid", ("×0.5", "×1"))
    assert (overshoot.dash, overshoot.notes) == ("dashed", ("", "×2", "×4"))
    assert regular.x[-1] == overshoot.x[0] == pytest.approx(min(regular.x + overshoot.x))
    with page.styled():
        (axes,) = page.draw_page([Block("frontier", (panel,), "")]).axes
    assert [style for line in axes.lines if (style := line.get_linestyle()) != "None"] == ["--", "-"]


def test_meta_losses_are_pooled_over_the_runs_of_an_arm(readers):
    (panel,) = [panel_of(readers, "meta-loss")]
    lines = by_label(panel.lines)
    assert lines["vanilla"].x == (1.0, 2.0, 3.0) and lines["vanilla"].y == pytest.approx([2.5] * 3)
    assert lines["vanilla"].low == pytest.approx([2.1] * 3) and lines["vanilla"].high == pytest.approx([2.9] * 3)


def test_a_long_line_is_a_moving_median():
    from engine.figures import Who

    values = [5.0 if step % 2 else 1.0 for step in range(1000)]
    values[500] = 1e9
    line = smoothed(Who("arm", 0, "a"), list(range(1000)), values)
    assert len(line.x) <= 400 and max(line.y) <= 5.0 and set(line.low) == {1.0} and set(line.high) == {5.0}


def test_the_rule_is_what_describe_says_mean_over_runs(readers):
    outputs, slices = panel_of(readers, "rule")
    rule = LEARNED_OPTIMIZERS.create("simple", hidden=3)
    one, other = (describe(rule, rule.init_phi(torch.Generator().manual_seed(seed))) for seed in (0, 1))
    line = by_label(slices.lines)["vanilla"]
    assert line.x == tuple(one["slice"]["feature"])
    assert line.y == pytest.approx(
        [(a + b) / 2 for a, b in zip(one["slice"]["update"], other["slice"]["update"], strict=True)]
    )
    assert line.low[0] == min(one["slice"]["update"][0], other["slice"]["update"][0])
    assert by_label(outputs.lines)["flat"].x[0] == 0.0


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"task": "mnist/cnn"}, ("--task", "mnist/mlp")),
        ({"step": 7}, ("--step", "10, 100")),
        ({"radius": 3.0}, ("--radius", "0.01, 0.05, 0.1")),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(readers, choice, words):
    with pytest.raises(LregError) as caught:
        evaluated(group_arms(readers), **choice)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "command"),
    [("curves", "lreg transfer"), ("frontier", "--scales"), ("rule", "lreg resume"), ("meta-loss", "lreg watch")],
)
def test_missing_data_name_the_command_that_makes_them(tmp_path, name, command):
    reader = RunReader(Run.create(tmp_path, from_mapping({"name": "new"})).path)
    with pytest.raises(LregError, match=f"--figure {name}.*{command}"):
        blocks(evaluated(group_arms([reader])), [name])
    with pytest.raises(LregError, match="nothing to draw"):
        blocks(evaluated(group_arms([reader])))


def test_files_from_strangers_make_no_trouble(tmp_path):
    mark = {"inner_step": 5, "train_loss": "low", "sharpness": {"x": 1, "0.1": None}}
    curve = {"inner_step": [1, "2", None], "train_loss": [None, 3.0]}
    strange = [
        {"seeds": 3},
        evaluation(seeds=[{"seed": 0, "curve": curve, "marks": [mark, 3]}, {"seed": 1, "curve": [], "marks": {}}]),
        evaluation(task=[]),
        evaluation(-1.0, scale=0.5),  # negative figures have no place on a logarithmic axis
    ]
    reader = make_run(tmp_path, "strange", 0, False, {str(number): found for number, found in enumerate(strange)})
    found = blocks(evaluated(group_arms([reader])))
    with page.styled():
        page.save(page.draw_page(found), tmp_path / "strange.png", "")


def drawn(readers, names=()):
    found = blocks(evaluated(group_arms(readers)), names)
    with page.styled():
        return page.draw_page(found), found


def test_the_axes_hold_the_data_and_the_legend_everybody(readers):
    figure, found = drawn(readers, ["curves", "accuracy"])
    curves, accuracy = figure.axes
    panel = found[0].panels[0]
    held = [(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in curves.get_lines()]
    assert all((line.x, line.y) in held for line in panel.lines)
    assert curves.get_xscale() == curves.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["vanilla", "flat", "untrained", "sgd"]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in accuracy.get_lines() if len(line.get_xdata()) == 1]
    assert all((point.x[0], point.y[0]) in points for point in found[1].panels[0].points)
    shapes = {(line.get_marker(), line.get_markerfacecolor() == "white") for line in curves.get_lines()}
    assert len(shapes) == 4  # told apart without colour, too
    assert accuracy.get_xlabel() == "sharpness at 0.05" and accuracy.get_ylabel() == "test accuracy"


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_a_file_is_sound_and_the_same_every_time(readers, tmp_path, kind, magic):
    for name in ("a", "b"):
        figure, _ = drawn(readers, ["curves", "frontier"])
        with page.styled():
            page.save(figure, tmp_path / f"{name}.{kind}", "a caption")
    data = (tmp_path / f"a.{kind}").read_bytes()
    assert data.startswith(magic) and data == (tmp_path / f"b.{kind}").read_bytes()
    if kind == "pdf":
        assert b"/FontType 42" in data or b"/CIDFontType2" in data or b"/TrueType" in data
    assert sorted(path.name for path in tmp_path.glob("?.*")) == [f"a.{kind}", f"b.{kind}"]


def test_a_name_is_shown_as_it_stands_and_svg_text_is_text(tmp_path):
    reader = make_run(tmp_path, HOSTILE, 0, False, {"a": evaluation()})
    figure, _ = drawn([reader], ["curves"])
    with page.styled():
        page.save(figure, tmp_path / "a.svg", HOSTILE)
    tree = ElementTree.parse(tmp_path / "a.svg")
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert HOSTILE in texts and "train loss" in texts


def test_ones_own_matplotlib_settings_are_neither_used_nor_changed(readers):
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0, "text.parse_math": True}):
        figure, _ = drawn(readers, ["curves"])
        assert figure.axes[0].title.get_fontsize() < 10
        assert matplotlib.rcParams["font.size"] == 31.0
    assert "matplotlib.pyplot" not in __import__("sys").modules


@pytest.mark.parametrize(
    ("counts", "columns", "places"),
    [
        ([2, 1, 1], 3, [[(0, 0), (0, 1)], [(0, 2)], [(1, 0)]]),
        ([2, 3], 3, [[(0, 0), (0, 1)], [(1, 0), (1, 1), (1, 2)]]),
        ([9], 3, [[(number // 3, number % 3) for number in range(9)]]),
    ],
)
def test_a_figure_stays_together(counts, columns, places):
    assert page.arrange(counts, columns) == places


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "0.01"), (200.0, "200"), (1e-6, "10⁻⁶"), (2e-5, "2×10⁻⁵"), (-0.5, "−0.5"), (0.0, "0")]
)
def test_ticks_are_plain_text(value, text):
    assert plain(value) == text


def bowl(depth: float) -> LandscapeSlice:
    offsets = (-1.0, 0.0, 1.0)
    losses = tuple(tuple(depth * (1 + a * a + b * b) for a in offsets) for b in offsets)
    return LandscapeSlice(offsets, losses, depth, {"loss": 0.2, "accuracy": 0.9})


def test_landscapes_share_their_colours_and_contour_lines(tmp_path):
    panels = [LandscapePanel("one", bowl(0.1), "0.05", 0.004), LandscapePanel("$other_", bowl(0.4), "", None)]
    levels = page.shared_levels(panels)
    assert (levels[0], levels[-1]) == pytest.approx((0.1, 1.2))
    with page.styled():
        figure = page.draw_page([], panels)
        page.save(figure, tmp_path / "l.png", "")
    one, other, bar = figure.axes
    filled = [axes.collections[0] for axes in (one, other)]
    assert filled[0].get_clim() == filled[1].get_clim() and list(filled[0].levels) == list(filled[1].levels) == levels
    assert one.get_title(loc="left") == "one\ntrain loss 0.100, test accuracy 90.0%\nsharpness at 0.05: 0.00400"
    assert other.get_title(loc="left") == "$other_\ntrain loss 0.400, test accuracy 90.0%"
    assert bar.get_ylabel() == "train loss"


def test_a_landscape_without_a_finite_loss_is_drawn_empty(tmp_path):
    empty = LandscapeSlice((-1.0, 1.0), ((math.nan,) * 2,) * 2, math.nan, {"accuracy": 0.1})
    with page.styled():
        page.save(page.draw_page([], [LandscapePanel("diverged", empty, "", None)]), tmp_path / "l.png", "")


def test_landscapes_of_runs_have_their_own_sharpness_and_the_task_that_is_asked_for(readers):
    digits = [evaluation(0.5, task={"dataset": "digits", "optimizee": "mlp", "batch_size": 128})]
    run = Run(readers[0].path)
    with run:
        run.write_transfer("digits", digits[0])
    arms = evaluated(group_arms(readers[:2]))
    panels, caption = landscapes(arms, torch.device("cpu"), task="digits/mlp", steps=10, points=3)
    assert [panel.title for panel in panels] == ["vanilla", "flat"] and "10 inner steps on digits/mlp" in caption
    assert panels[0].sharpness == pytest.approx(0.5 * 0.05) and panels[1].sharpness is None
