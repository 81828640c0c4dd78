"""compare: complete on a narrow terminal, and in forms that other programs read."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from comparing import RADII, baseline, evaluation, make_run, mark
from driving import forked_lreg
from tui.driving import make_job

from engine.runs.store import Run

NAME = "sam_50% | *firm* $x$ #1"
EVIL = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\u202e\r\n=1+1"
SAM = {"penalty": {"sam": {"weight": 2.0}}}


def law(factor: float, scale: float = 1.0):
    def figures(seed: int, step: int):
        loss = 2 * (scale * step) ** -0.5 * (1 + 0.01 * seed)
        return mark(loss, factor * loss**2)

    return figures


@pytest.fixture
def runs(home):
    """A vanilla run under scales, one with a penalty and an awkward name, and a baseline."""
    vanilla, sam = make_run(home, "lo"), make_run(home, NAME, **SAM)
    how = {"steps": (10, 50, 100), "seeds": range(5)}
    for scale in (0.5, 1, 2):
        vanilla.write_transfer(f"x{scale}", evaluation(law(3.0, scale), **how, scale=scale))
    rule = {"std": 0.02, "max": 0.08, "lipschitz": 0.4}
    sam.write_transfer("best", evaluation(law(1.5), **how, update_rule=rule))
    sam.write_transfer("sgd", baseline(law(2.0), steps=(50, 100)))
    return [vanilla.id, sam.id]


def test_json_is_one_object_and_nothing_else(lreg, runs):
    outcome = lreg("compare", *runs, "--json")
    (found,) = outcome.lines
    assert outcome.code == 0 and found["reference"] == "lo" and found["radius"] == "0.1"
    (item,) = [
        item
        for item in found["paired"]
        if (item["setting"], item["figure"], item["radius"]) == ("matched loss", "sharpness", "0.01")
    ]
    assert item["mean"] == pytest.approx(0.5) and item["verdict"] == "lower" and item["n"] == 5
    assert [row["label"] for row in found["tables"][0]["rows"]] == ["lo", NAME, "lo ×0.5", "lo ×2", "sgd"]


def test_csv_reads_back_as_the_numbers_of_the_json(lreg, runs):
    found = lreg("compare", *runs, "--json").lines[0]
    rows = list(csv.DictReader(io.StringIO(lreg("compare", *runs, "--csv").out)))
    assert list(rows[0]) == "section task inner_step arm figure radius mean low high n".split()
    for row in found["tables"][0]["rows"]:
        for radius in RADII:
            (own,) = [
                line
                for line in rows
                if (line["section"], line["arm"], line["figure"], line["radius"])
                == ("table", row["label"], "sharpness", radius)
            ]
            cell = row["figures"]["sharpness"][radius]
            assert (float(own["mean"]), float(own["low"]), int(own["n"])) == (cell["mean"], cell["low"], cell["n"])
    assert sum(line["section"].startswith("paired") for line in rows) == len(found["paired"])


def test_markdown_rows_have_equally_many_cells(lreg, runs):
    text = lreg("compare", *runs, "--markdown").out
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7  # settings, meta-training, update rule, task, paired, against the frontier, by radius
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1
    assert r"sam\_50% \| \*firm\* \$x\$ \#1" in text
    assert "| 0.0200 | 0.0800 | 0.400 |" in tables[2]
    task = tables[3].splitlines()
    assert all(line.count("**") >= 2 for line in task if line.startswith("| lo ×2"))


def test_latex_escapes_what_latex_obeys(lreg, runs):
    text = lreg("compare", *runs, "--latex").out
    assert r"sam\_50\% \textbar{} *firm* \$x\$ \#1" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 7
    assert not re.search(r"(?<!\\)[%_#]", text)
    for table in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.S):
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in table.splitlines()}) == 1
    assert r"$\pm$" in text and r"\textbf{" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_tables_are_complete_at_every_width(lreg, runs, width, monkeypatch):
    wide = lreg("compare", *runs, "--markdown").out
    monkeypatch.setenv("COLUMNS", str(width))
    outcome = lreg("compare", *runs)
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= width
    cells = set(re.findall(r"[0-9.e-]+ ± [0-9.e-]+%?", wide))
    shown = " ".join(outcome.out.split())
    assert len(cells) > 20 and (width < 80 or all(cell in shown for cell in cells))
    assert "…" not in outcome.out and shown.count("at equal") >= 2 and "lower" in shown


def test_one_run_has_its_own_table(lreg, runs):
    outcome = lreg("compare", runs[0])
    assert outcome.code == 0 and "fmnist/mlp after 100 inner steps" in outcome.out and "against" not in outcome.out


def test_the_reference_can_be_chosen_and_need_not_be_given_twice(lreg, runs):
    (found,) = lreg("compare", runs[0], "--reference", runs[1], "--json").lines
    assert found["reference"] == NAME
    ratios = [item["mean"] for item in found["paired"] if item["figure"] == "sharpness"]
    assert ratios == [pytest.approx(2.0)] * len(ratios) and len(ratios) == 4


def test_step_radius_and_task_choose(lreg, runs):
    (found,) = lreg("compare", *runs, "--step", "50", "--radius", "1e-2", "--task", "fmnist/mlp", "--json").lines
    assert found["tables"][0]["inner_step"] == 50 and found["radius"] == "0.01"
    assert "sharpness at 0.01" in lreg("compare", *runs, "--radius", "0.01", "--markdown").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json", "--csv"], "--csv: found given together with --json"),
        (["--markdown", "--latex"], "--latex: found given together with --markdown"),
        (["--task", "mnist/mlp"], "fmnist/mlp"),
        (["--step", "7"], "10, 50, 100"),
        (["--step", "x"], "an integer >= 0"),
        (["--radius", "7"], "0.01, 0.1"),
        (["--radius", "nan"], "a number > 0"),
        (["--reference", "nobody"], 'no run "nobody"'),
        (["nobody"], 'no run "nobody"'),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(lreg, runs, options, words):
    outcome = lreg("compare", *runs, *options)
    assert outcome.code == 2 and outcome.out == ""
    assert words in outcome.err and len(outcome.err.splitlines()) == 1


def test_without_transfers_the_command_that_makes_them_is_named(lreg, home):
    run = make_run(home, "lo")
    outcome = lreg("compare", run.id)
    assert outcome.code == 0 and f"lreg transfer {run.id}" in outcome.err and "meta-training" in outcome.out


def test_damaged_files_are_counted_in_one_line(lreg, runs, home):
    for name, words in (("a", "1 damaged transfer file is left out"), ("b", "2 damaged transfer files are left out")):
        (home / "runs" / runs[0] / "transfer" / f"{name}.json").write_text("{")
        outcome = lreg("compare", *runs, "--json")
        assert outcome.code == 0 and len(outcome.lines) == 1
        assert outcome.err.splitlines() == [words]


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"], ["--markdown"], ["--latex"]])
def test_hostile_text_is_only_text(lreg, home, form):
    run, other = make_run(home, "lo"), make_run(home, "sam", **SAM)
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**facts, "name": EVIL}))
    (other.path / "preset.toml").write_text("damaged " + EVIL)
    run.write_transfer("a", evaluation(law(1.0), task={"dataset": EVIL, "optimizee": "mlp", EVIL: EVIL}))
    run.write_transfer("b", baseline(law(1.0), "=HYPERLINK(1)", task={"dataset": EVIL, "optimizee": "mlp", EVIL: EVIL}))
    outcome = lreg("compare", run.id, other.id, *form)
    assert outcome.code == 0 and outcome.out
    assert not any(character in outcome.out + outcome.err for character in "\x1b\x07\u202e\r")
    if form == ["--csv"]:
        cells = [cell for row in csv.reader(io.StringIO(outcome.out)) for cell in row]
        assert "'=HYPERLINK(1)" in cells and not any(cell.startswith("=") for cell in cells)


def test_a_transfer_job_is_no_run(lreg, runs, home):
    job = make_job(home / "runs", [Run(home / "runs" / runs[0])])
    outcome = lreg("compare", job.id)
    assert outcome.code == 2 and "a transfer evaluation, should be one of the runs that it evaluated" in outcome.err


def test_a_terminal_without_special_characters_has_complete_tables(zygote, home, runs):
    outcome = forked_lreg(zygote, home, "compare", *runs, PYTHONIOENCODING="ascii", COLUMNS="80")
    assert outcome.code == 0, outcome.err
    assert " +- " in outcome.out and max(map(len, outcome.out.splitlines())) <= 80


def test_a_table_against_the_references_frontier_says_what_is_not_significant(lreg, home, runs):
    """Sharpness is half of the frontier's at every loss; test loss is equal."""
    decayed = evaluation(law(0.75), steps=(100,), seeds=range(5), weight_decay=1e-3)
    Run(home / "runs" / runs[0]).write_transfer("decayed", decayed)
    out = lreg("compare", *runs, "--markdown").out
    (table,) = [part for part in out.split("###") if "against the frontier of lo" in part]
    rows = [row.removesuffix(" |").rsplit(" | ", 3) for row in table.splitlines() if row.startswith("|")]
    cells = {label.split(": ")[-1]: ratios for label, *ratios in rows}
    assert [re.findall(r"[\d.]+", cell)[0] for cell in cells["sharpness at 0.1"]] == ["0.500", "0.500", "2.00"]
    assert "lower" in cells["sharpness at 0.1"][0] and "higher" in cells["sharpness at 0.1"][2]
    assert cells["test loss"][0].endswith("n.s.")
    assert "n.s.: " in out, "what the word means"
    assert "lo is the control of" in table and "without penalty.sam" in table
    assert "lo decay 0.001" not in out and "1 point of the grid" in out
