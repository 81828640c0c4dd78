"""Adaptive sharpness and test loss come first where runs are read; files of before they were measured still compare."""

from __future__ import annotations

import json

import pytest
from comparing import evaluation, make_run, mark, readers

from engine.base.metrics import metric, primary_sharpness
from engine.comparison import compare, group_arms
from engine.evaluation.transfer_plan import Protocol
from engine.figures import blocks, evaluated
from engine.runs.evaluations import MetricAt
from engine.runs.results import columns, rows
from lreg_tui.compare import comparison_sheets
from lreg_tui.runs.run_files import result_sheet

ADAPTIVE = MetricAt("adaptive_sharpness", "0.5")


def with_adaptive(factor: float):
    """Marks whose adaptive sharpness is a tenth of the factor, over the optimizee's seed."""
    return lambda seed, step: {**mark(1.0), "adaptive_sharpness": {"0.5": 0.1 * factor * (1 + 0.1 * seed)}}


SAM = {"penalty": {"sam": {"rho": 0.05}}}


@pytest.fixture
def runs(tmp_path):
    plain, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    plain.write_transfer("best", evaluation(with_adaptive(1.0)))
    sam.write_transfer("best", evaluation(with_adaptive(0.5)))
    return plain, sam


def test_it_is_a_metric_of_which_less_is_better():
    adaptive = metric("adaptive_sharpness")
    assert (adaptive.better, adaptive.kind, adaptive.unit) == ("lower", "landscape", "")
    assert primary_sharpness(["sharpness", "adaptive_sharpness"]) == adaptive
    assert primary_sharpness(["sharpness"]).name == "sharpness"


def test_a_result_table_begins_with_test_loss_and_adaptive_sharpness_at_its_own_radius():
    table = rows([evaluation(with_adaptive(1.0))])
    names = [one.name for one in columns(table)]
    assert names[:2] == ["test_loss", "adaptive_sharpness"] and names[-2:] == ["sharpness", "parameter_norm"]
    last = table[-1]
    assert last["adaptive_sharpness"]["radius"] == "0.5" != last["sharpness"]["radius"]
    sheet = result_sheet(table)
    headings = " ".join(" ".join(sheet.columns).split())
    assert "adaptive sharpness at 0.5" in headings and f"sharpness at {last['sharpness']['radius']}" in headings


def test_arms_are_compared_in_it_by_ratios_before_all_but_test_loss(runs):
    compared = compare(readers(*runs))
    equal = [one for one in compared.effects if one.setting == "equal steps"]
    assert [one.at for one in equal[:2]] == [MetricAt("test_loss"), ADAPTIVE]
    effect = equal[1]
    assert effect.kind == "ratio" and effect.interval.mean == pytest.approx(0.5)
    (table,) = compared.tables
    assert {table.rows[place].label for place in table.best(ADAPTIVE)} == {"sam"}
    sheet = comparison_sheets.table_sheet(table, compared.radius)
    assert [" ".join(heading.split()) for heading in sheet.columns[:2]] == ["test loss", "adaptive sharpness at 0.5"]
    words = [" ".join(heading.split()) for heading in sheet.columns]
    assert words.index("parameter norm") == words.index(f"sharpness at {compared.radius}") + 1
    (effects, *_) = comparison_sheets.effect_sheets(compared, table)
    assert [label for label, _ in effects.rows][:2] == ["test loss difference", "adaptive sharpness at 0.5 ratio"]


def test_figures_take_it_where_everybody_has_it(runs, tmp_path):
    def axes():
        made = blocks(evaluated(group_arms(readers(*runs))), ["accuracy"])
        return {(panel.x.name, panel.x.radius) for block in made for panel in block.panels}

    assert axes() == {("adaptive_sharpness", "0.5")}
    runs[1].write_transfer("best", evaluation(lambda seed, step: mark(1.0)))  # an earlier version's
    ((name, _),) = axes()
    assert name == "sharpness"


def test_files_of_before_and_after_compare(tmp_path):
    plain, sam = make_run(tmp_path, "lo"), make_run(tmp_path, "sam", **SAM)
    plain.write_transfer("best", evaluation(lambda seed, step: mark(1.0)))
    sam.write_transfer("best", evaluation(with_adaptive(0.5)))
    compared = compare(readers(plain, sam))
    assert ADAPTIVE not in {one.at for one in compared.effects}
    (table,) = compared.tables
    by_label = {row.label: row.metrics for row in table.rows}
    assert ADAPTIVE in by_label["sam"] and ADAPTIVE not in by_label["lo"]
    sheet = comparison_sheets.table_sheet(table, compared.radius)
    assert dict(sheet.rows)["lo"][1].text == "–"


def test_a_plan_of_an_earlier_version_is_read():
    protocol = Protocol(10, (0.1,), 100, 3, 20, "float64", False, (10,))
    values = json.loads(json.dumps(vars(protocol)))
    del values["adaptive_radius"]
    assert Protocol.from_json(values) == protocol
