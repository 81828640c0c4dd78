"""A task that measures something of its own, perplexity in nats, and no accuracy: what files say of it decides."""

from __future__ import annotations

import json

import pytest
from comparing import evaluation, make_run, mark, readers

from engine.base.metrics import TASK_METRICS
from engine.comparison import MetricAt, compare, group_arms
from engine.comparison.forms import as_json, tidy
from engine.figures import blocks, evaluated
from engine.runs.results import columns, rows
from engine.runs.writer import Run
from lreg_tui.compare import comparison_sheets
from lreg_tui.figures import page

PERPLEXITY = {"label": "perplexity (nats)", "better": "lower", "unit": ""}
SCORE = {"better": "higher", "unit": "share"}
TEXT = {"dataset": "shakespeare", "optimizee": "gru", "batch_size": 128}
SAM = {"penalty": {"sam": {"weight": 2.0}}}


def text_mark(perplexity: float) -> dict:
    """Perplexity falls and the score rises with it; nothing like accuracy is there."""
    measured = mark(0.1 * perplexity, perplexity)
    del measured["test_accuracy"]
    return {
        **measured,
        "test_perplexity": perplexity,
        "validation_perplexity": perplexity,
        "test_score": 1 / perplexity,
    }


def text_evaluation(factor: float, **facts) -> dict:
    """Perplexity 10, 11, 12 times `factor`, halved from inner step 10 to 100."""
    own = {"perplexity": PERPLEXITY, "score": SCORE}
    return evaluation(
        lambda seed, step: text_mark(factor * (10 + seed) * (2 if step < 100 else 1)),
        steps=(10, 100),
        **{"task": TEXT, "metrics": own, **facts},
    )


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Two arms of two meta-seeds; that with the penalty has 0.8 times the perplexity."""
    made = []
    for seed in (0, 1):
        plain, sam = make_run(tmp_path, f"lo-s{seed}", seed=seed), make_run(tmp_path, f"sam-s{seed}", seed=seed, **SAM)
        for scale in (0.5, 1.0, 2.0, 4.0):
            plain.write_transfer(f"x{scale}", text_evaluation(1 / scale, scale=scale))
        sam.write_transfer("best", text_evaluation(0.8))
        made += [plain, sam]
    return made


def test_arms_are_compared_in_it_and_lower_is_better(runs):
    compared = compare(readers(*runs))
    effects = {(item.setting, item.metric.name): item for item in compared.effects}
    perplexity = effects["equal steps", "test_perplexity"]
    assert (perplexity.kind, perplexity.verdict, perplexity.metric.better) == ("difference", "lower", "lower")
    assert perplexity.interval.mean == pytest.approx(-0.2 * 11)
    assert effects["equal steps", "test_score"].verdict == "higher"
    assert ("equal steps", "test_accuracy") not in effects
    names = [item.metric.name for item in compared.effects if item.setting == "equal steps"]
    assert names[:2] == ["test_perplexity", "test_score"]
    (table,) = compared.tables
    assert {table.rows[place].label for place in table.best(MetricAt("test_perplexity"))} == {"lo ×4"}
    assert table.best(MetricAt("test_score")) == table.best(MetricAt("test_perplexity"))
    assert table.best(MetricAt("validation_perplexity")) == frozenset()  # nothing is picked on validation here


def test_of_a_frontier_the_best_point_is_the_lowest_perplexity_and_the_highest_score(tmp_path):
    """Under scales 0.5, 1, 2, 4 the loss falls, falls, and rises again, while perplexity goes on falling."""
    plain, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    own = {"task": TEXT, "metrics": {"perplexity": PERPLEXITY, "score": SCORE}}
    for scale, loss, perplexity in ((0.5, 0.8, 8.0), (1, 0.4, 4.0), (2, 0.2, 2.0), (4, 0.8, 1.0)):
        figures = {**text_mark(perplexity), "train_loss": loss}
        plain.write_transfer(f"x{scale}", evaluation(lambda seed, step, now=figures: now, scale=scale, **own))
    sam.write_transfer("best", evaluation(lambda seed, step: {**text_mark(1.0), "train_loss": 0.4}, **own))
    compared = compare(readers(plain, sam))
    differences = {item.metric.name: item.interval.mean for item in compared.effects if item.setting == "frontier"}
    assert differences["test_perplexity"] == pytest.approx(1 - 2**0.5)  # halfway from (0.2, 2) to (0.8, 1)
    assert differences["test_score"] == pytest.approx(1 - 0.5**0.5)


def test_it_stands_where_accuracy_would(runs):
    compared = compare(readers(*runs))
    (table,) = compared.tables
    sheet = comparison_sheets.table_sheet(table, compared.radius)
    assert "perplexity" in " ".join(sheet.columns) and "accuracy" not in " ".join(sheet.columns)
    for form in ("markdown", "latex", "csv", "json"):
        assert "perplexity" in comparison_sheets.text(compared, form)
    (row,) = (row for row in as_json(compared)["tables"][0]["rows"] if row["label"] == "sam")
    assert row["figures"]["test_perplexity"]["mean"] == pytest.approx(0.8 * 11)
    assert any(cells[4] == "test_perplexity" and cells[0].startswith("paired") for cells in tidy(compared))


def test_it_is_drawn_against_sharpness(runs, tmp_path):
    (block,) = blocks(evaluated(group_arms(readers(*runs))), ["accuracy"])
    (panel,) = block.panels
    assert panel.y.name == "test_perplexity" and panel.y.unit == "" and block.caption.startswith("Test perplexity")
    points = {point.who.label: point for point in panel.points}
    assert points["sam"].y[0] == pytest.approx(0.8 * 11)
    with page.styled():
        figure = page.draw_page([block])
        assert figure.axes[0].get_ylabel() == "test perplexity (nats)"


def test_a_result_table_has_its_columns():
    (_, last) = table = rows([text_evaluation(1.0)])
    assert [metric.name for metric in columns(table)] == [
        *("train_loss", "test_loss", "test_perplexity", "test_score", "sharpness")
    ]
    assert last["test_perplexity"]["mean"] == 11.0 and "test_accuracy" not in last
    units = {metric.name: (metric.unit, metric.better) for metric in columns(json.loads(json.dumps(table)))}
    assert units["test_score"] == ("share", "higher") and units["test_perplexity"] == ("", "lower")


@pytest.mark.parametrize("own", [3, [1], {"perplexity": 3}, {"perplexity": {"better": "best", "unit": [1]}}, {"": {}}])
def test_what_files_say_of_metrics_makes_no_trouble(tmp_path, own):
    run = make_run(tmp_path, "lo")
    run.write_transfer("best", text_evaluation(1.0, metrics=own))
    (run.path / "metrics.json").write_text(json.dumps(own))
    (table,) = compare(readers(run)).tables
    assert table.rows[0].metrics[MetricAt("test_perplexity")].mean == 11.0
    assert all(metric.better in ("lower", "higher", "") for metric in readers(run)[0].measured.values())


def test_a_run_says_what_its_task_measures(tmp_path):
    run = make_run(tmp_path, "lo")
    (reader,) = readers(run)
    assert reader.measured is TASK_METRICS
    (run.path / "metrics.json").write_text(json.dumps({"perplexity": PERPLEXITY, "score": SCORE}))
    assert reader.measured["score"].sign == 1 and reader.measured["perplexity"].words == "perplexity (nats)"
    for damaged in ("{", "[]", "x" * 2**21):
        (run.path / "metrics.json").write_text(damaged)
        assert reader.measured is TASK_METRICS


def test_whether_an_optimizer_is_untrained_its_checkpoint_says(tmp_path):
    """Only of the beginning of a run, which may be another run's end, the label does."""
    kinds = {
        ("best", "simple (untrained)"): "arm",
        (None, "simple"): "untrained",
        ("untrained", "simple"): "untrained",
        ("initial", "simple (untrained)"): "untrained",
        ("initial", "simple (start)"): "arm",
    }
    for number, ((checkpoint, label), kind) in enumerate(kinds.items()):
        run = make_run(tmp_path / str(number), "lo")
        run.write_transfer("a", evaluation(lambda seed, step: mark(1.0), checkpoint=checkpoint, label=label))
        (table,) = compare(readers(run)).tables
        assert [row.kind for row in table.rows] == [kind], (checkpoint, label)
