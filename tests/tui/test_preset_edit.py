"""What the preset editor does to text: edits that keep comments, the checks, what was typed, differences, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from engine.base.errors import LregError, PresetError
from engine.base.settings import Setting
from engine.presets import catalog as catalogs
from engine.presets.preset import load_preset, shipped
from lreg_tui.presets import preset_edit, toml_edit
from lreg_tui.presets.preset_edit import HERE, Checked, check, tables_of, typed
from lreg_tui.presets.toml_edit import EditError, add_table, lines_of, number, remove, set_value

CATALOG = catalogs.load()
COMMENTED = """\
# why this preset exists
extends = "lo.toml" # the base

[meta]
epochs = 20 # few

# about the penalty
[penalty.gam]
rho = 0.05 # small
"""


def values(text: str, path: Path = Path("mine.toml")) -> Checked:
    return check(text, path, CATALOG)


def row(checked: Checked, path: str) -> preset_edit.FormRow:
    return next(row for table in tables_of(checked, CATALOG) for row in table.rows if row.path == path)


# -- edits of the text -------------------------------------------------------------------------------------------------


def test_a_value_is_replaced_and_everything_else_stays() -> None:
    assert set_value(COMMENTED, "meta.epochs", "7") == COMMENTED.replace("epochs = 20 # few", "epochs = 7 # few")


def test_a_new_key_stands_behind_the_keys_of_its_table_and_not_behind_the_comments_of_the_next() -> None:
    edited = set_value(COMMENTED, "meta.learning_rate", "1e-4")
    assert edited == COMMENTED.replace("# few\n", "# few\nlearning_rate = 1e-4\n")


def test_a_new_key_at_the_top_stands_before_the_first_table() -> None:
    edited = set_value(COMMENTED, "seed", "5")
    assert edited == COMMENTED.replace("# the base\n", "# the base\nseed = 5\n")


def test_a_new_table_is_one_blank_line_apart() -> None:
    assert set_value(COMMENTED, "optimizer.kind", '"simple"') == COMMENTED + '\n[optimizer]\nkind = "simple"\n'
    assert add_table(COMMENTED, "penalty.sam") == COMMENTED + "\n[penalty.sam]\n"


def test_removing_a_key_or_a_table_keeps_the_comments_around_it() -> None:
    assert remove(COMMENTED, "meta.epochs") == COMMENTED.replace("epochs = 20 # few\n", "")
    assert remove(COMMENTED, "penalty.gam").splitlines()[-1] == "# about the penalty"
    assert remove(COMMENTED, "meta.truncation") == COMMENTED


def test_terms_of_the_objective_are_edited_as_penalties_are() -> None:
    with_term = add_table(COMMENTED, "objective.terms.sharpness")
    assert with_term == COMMENTED + "\n[objective.terms.sharpness]\n"
    both = set_value(with_term, "objective.log", "true")  # whose own table is not written yet
    assert both == COMMENTED + "\n[objective]\nlog = true\n\n[objective.terms.sharpness]\n"
    assert set_value(both, "objective.loss", '"last"') == both.replace("true\n", 'true\nloss = "last"\n')
    commented = "# flat\n[objective.terms.sharpness]\n"
    assert set_value(commented, "objective.log", "true") == f"[objective]\nlog = true\n\n{commented}"
    assert remove(both, "objective.terms.sharpness") == COMMENTED + "\n[objective]\nlog = true\n"
    assert remove(with_term, "objective.terms.sharpness") == COMMENTED
    above = '[objective] # what counts\nloss = "last"\n\n# flat\n[objective.terms.sharpness]\nlog = true\n'
    assert set_value(above, "objective.log", "true") == above.replace('"last"\n', '"last"\nlog = true\n')
    assert remove(above, "objective.terms.sharpness").startswith('[objective] # what counts\nloss = "last"\n')
    assert lines_of(above, ["objective.terms.sharpness.log", "objective.terms.sharpness"]) == {
        "objective.terms.sharpness.log": 5,
        "objective.terms.sharpness": 4,
    }


def test_an_estimator_brings_its_settings_and_terms_their_tables() -> None:
    text = '[meta]\nestimator = "es"\npairs = 0\n[objective]\nlog = true\n[objective.terms.sharpness]\nradius = 0.2\n'
    checked = values(text)
    paths = [table.path for table in tables_of(checked, CATALOG)]
    assert paths[-4:] == ["objective", "objective.terms.sharpness", "meta", "evaluation"]
    assert (row(checked, "meta.pairs").problem is not None, row(checked, "meta.sigma").value) == (True, 0.1)
    assert row(checked, "meta.estimator").setting.choices == tuple(CATALOG.estimators)
    assert (row(checked, "objective.terms.sharpness.radius").value, row(checked, "objective.log").origin) == (0.2, HERE)
    assert "sharpness" not in preset_edit.addable(checked, CATALOG)["objective.terms"]
    assert preset_edit.addable(checked, CATALOG)["penalty"] == list(CATALOG.penalties)
    usual = values(text.replace('"es"\npairs = 0', '"tbptt"'))
    assert "meta.pairs" not in [row.path for table in tables_of(usual, CATALOG) for row in table.rows]
    about = {table.path: table.problems for table in tables_of(usual, CATALOG)}
    assert "es" in str(about["objective.terms.sharpness"][0]) and row(usual, "objective.log").problem is not None


FORMER = """\
# why
extends = "flat"

[objective] # what counts
loss = "last"
batches = 5 # fresh ones
split = "validation"

# flat
[objective.sharpness]
at_loss = 0.5 # where it is low
radius = 0.1
"""


def test_an_edit_brings_a_former_form_into_todays() -> None:
    text = preset_edit.in_todays_form(FORMER)
    assert text == FORMER.replace('"last"', '"validation"').replace('split = "validation"\n', "").replace(
        "[objective.sharpness]\nat_loss", "[objective.terms.sharpness]\nat"
    )
    assert preset_edit.in_todays_form(text) == text
    for former in (FORMER, text):
        checked = values(former)
        assert not checked.problems and checked.preset is not None
        assert row(checked, "objective.loss").value == "validation" and row(checked, "objective.loss").origin == HERE
        assert (row(checked, "objective.terms.sharpness.at").value, row(checked, "objective.batches").value) == (0.5, 5)
        assert row(checked, "objective.terms.adaptive_sharpness.radius").origin == "flat"
    for in_one_line in (
        'objective = { loss = "last", batches = 2, sharpness = { at_loss = 0.5 } }\n',
        "objective.sharpness.at_loss = 0.5\nobjective.log = true\n",
    ):
        with pytest.raises(EditError, match="objective cannot be changed from here"):
            preset_edit.in_todays_form(in_one_line)
    assert preset_edit.in_todays_form(COMMENTED) == COMMENTED


def test_a_former_form_that_depends_on_what_it_extends_is_brought_into_todays_by_its_meaning() -> None:
    text = 'extends = "flat"\n\n[objective]\nbatches = 0\n'
    assert preset_edit.in_todays_form(text, values(text)) == 'extends = "flat"\n\n[objective]\nloss = "last"\n'
    text = 'extends = "flat"\n\n[objective]\nsplit = "validation"\n'
    assert preset_edit.in_todays_form(text, values(text)) == 'extends = "flat"\n\n[objective]\nloss = "validation"\n'


def test_another_loss_takes_the_batches_out_that_mean_nothing_for_it() -> None:
    text = '[objective]\nloss = "last_many"\nbatches = 5\n'
    assert preset_edit.with_value(text, "objective.loss", '"last"') == '[objective]\nloss = "last"\n'
    assert preset_edit.with_value(text, "objective.loss", '"validation"') == text.replace("last_many", "validation")
    assert "objective.batches" not in [row.path for table in tables_of(values(""), CATALOG) for row in table.rows]
    assert row(values(text), "objective.batches").value == 5


def test_a_key_that_preset_new_wrote_as_a_comment_comes_alive() -> None:
    text = 'extends = "lo"\n\n# [meta]\n# epochs = 100          # meta-epochs\n# truncation = 20 # length\n'
    edited = set_value(text, "meta.truncation", "10")
    assert edited == 'extends = "lo"\n\n[meta]\n# epochs = 100          # meta-epochs\ntruncation = 10 # length\n'


def test_a_comment_of_the_users_own_is_no_key() -> None:
    text = "[meta]\nepochs = 3\n# truncation = 5 was too short\n"
    edited = set_value(text, "meta.truncation", "10")
    assert edited == "[meta]\nepochs = 3\ntruncation = 10\n# truncation = 5 was too short\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "# about the task\n[task]\nbatch_size = 3\n",
        "[[task]]\nbatch_size = 3\n",
        "penalty.sam.rho = 0.1 # dotted\nmeta.epochs = 3\n",
        'task = {dataset = "mnist"} # inline\n[penalty]\nsam = {rho = 1.0}\n',
        "[penalty]\n[penalty.sam]\nrho = 1.0\n[meta]\n[penalty.gam]\n",
        "[evaluation]\nradii = [\n  0.1, # large\n  [0.2],\n  0.3\n]\n[meta]\n",
        'description = """\n[meta]\nepochs = 3\n"""\n',
        "[meta]\r\nepochs = 3\r\n",
    ],
)
@pytest.mark.parametrize("path, raw", [("penalty.sam.rho", "3.0"), ("meta.epochs", "7"), ("task.dataset", '"digits"')])
def test_every_form_of_toml_is_either_edited_rightly_or_refused(text: str, path: str, raw: str) -> None:
    before = tomli.loads(text)
    try:
        after = tomli.loads(set_value(text, path, raw))
    except EditError:
        assert "\r" in text or '"""' in text
        return
    keys = toml_edit.keys_of(path, after)
    assert toml_edit.at(after, keys) == tomli.loads(f"x = {raw}")["x"]
    assert [line for line in set_value(text, path, raw).split("\n") if "#" in line] == [
        line.replace("rho = 0.1", f"rho = {raw}") if path == "penalty.sam.rho" else line
        for line in text.replace('"mnist"', raw if path == "task.dataset" else '"mnist"').split("\n")
        if "#" in line
    ]
    rest = {key: value for key, value in before.items() if key != path.split(".")[0]}
    assert {key: value for key, value in after.items() if key in rest} == rest


def test_what_cannot_be_changed_in_place_is_refused_with_a_reason() -> None:
    with pytest.raises(EditError, match=r"meta\.epochs"):
        set_value("meta = 3\n", "meta.epochs", "7")
    with pytest.raises(EditError, match="no valid TOML"):
        set_value("[meta\n", "meta.epochs", "7")


def test_where_a_problem_stands() -> None:
    lines = COMMENTED.split("\n")
    for path, line in (
        ("meta.epochs", "epochs = 20 # few"),
        ("penalty.gam.rho", "rho = 0.05 # small"),
        ("penalty.gam.start", "[penalty.gam]"),
        ("extends", 'extends = "lo.toml" # the base'),
    ):
        assert lines[lines_of(COMMENTED, [path])[path]] == line
    assert lines_of(COMMENTED, ["seed", "meta.epochs"]) == {"meta.epochs": 4}
    forms = "task.dataset = 'x'\npenalty = {sam = {rho = 1}}\n[[a]]\nb = [\n1,\n2]\nc = 1\n"
    assert lines_of(forms, ["task", "penalty.sam.rho", "a.0.c"]) == {"task": 0, "penalty.sam.rho": 1, "a.0.c": 6}


# -- checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_preset_is_the_same_in_the_editor_as_on_the_command_line(name: str) -> None:
    draft = preset_edit.take_up(name)
    checked = check(draft.text, draft.path, CATALOG)
    assert checked.preset is not None
    assert checked.preset.values == load_preset(name).values


def test_problems_are_those_of_preset_check(tmp_path: Path) -> None:
    text = 'sed = 1\n[meta]\nepochs = "ten"\ninner_steps = 10\ntruncation = 50\n[penalty.sma]\n'
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(PresetError) as caught:
        load_preset(file)
    checked = values(text, file)
    assert checked.preset is None
    assert [str(problem) for problem in checked.problems] == [str(problem) for problem in caught.value.problems]


def test_inherited_values_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "lo"\n[meta]\nepochs = 7\ntruncation = 5\n')
    checked = values('extends = "base.toml"\n[meta]\ntruncation = 4\n', tmp_path / "mine.toml")
    assert (row(checked, "meta.truncation").value, row(checked, "meta.truncation").origin) == (4, HERE)
    assert (row(checked, "meta.epochs").value, row(checked, "meta.epochs").origin) == (7, "base.toml")
    assert row(checked, "task.dataset").origin == "lo"
    assert row(checked, "meta.momentum").origin == ""


def test_a_problem_in_the_parent_names_it_and_circles_are_found(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[meta]\nepochs = -1\n")
    problem = values('extends = "base.toml"\n', tmp_path / "mine.toml").problems[0]
    assert (problem.path, problem.source) == ("meta.epochs", str(tmp_path / "base.toml"))
    (tmp_path / "base.toml").write_text('extends = "mine.toml"\n')
    (tmp_path / "mine.toml").write_text("")  # what is on the disk is out of date: the text extends base.toml
    problem = values('extends = "base.toml"\n', tmp_path / "mine.toml").problems[0]
    assert problem.path == "extends" and "circle" in problem.found
    problem = values('extends = "mine.toml"\n', tmp_path / "mine.toml").problems[0]
    assert "circle" in problem.found


@pytest.mark.parametrize(
    "text",
    [
        "[meta",
        "x = 1\nx = 2",
        "a = " + "[" * 5000,
        "\x00",
        "task = 3",
        "penalty = []\n",
        "objective = 1\n[meta]\nestimator = [2]\n",
    ],
)
def test_what_is_no_preset_is_a_problem_and_nothing_worse(text: str) -> None:
    checked = values(text)
    assert checked.problems
    tables_of(checked, CATALOG)


def test_the_picks_decide_which_settings_there_are() -> None:
    paths = {row.path for table in tables_of(values('[optimizer]\nkind = "simple"\n'), CATALOG) for row in table.rows}
    assert "optimizer.output_scale" in paths and "optimizer.layers" not in paths
    several = tables_of(values('[[task]]\ndataset = "mnist"\n[[task]]\ndataset = "cifar10"\n'), CATALOG)
    assert [table.path for table in several if table.path.startswith("task")] == ["task.0", "task.1"]
    assert "task.1.augment" in {row.path for table in several for row in table.rows}


# -- what is typed -----------------------------------------------------------------------------------------------------

NUMBER = Setting("x", ("float",), 0.1, "", above=0)
STEPS = Setting("x", ("int", "int[]"), 100, "", minimum=1)
RADII = Setting("x", ("float[]",), (), "", above=0)
TAGS = Setting("x", ("str[]",), (), "", allow_empty=True)
WORD = Setting("x", ("str",), "", "")
FLAG = Setting("x", ("bool",), False, "")


@pytest.mark.parametrize(
    "setting, text, raw",
    [
        (NUMBER, "1e-4", "1e-4"),
        (NUMBER, ".5", "0.5"),
        (NUMBER, " 3 ", "3"),
        (STEPS, "100", "100"),
        (STEPS, "100, 200,500", "[100, 200, 500]"),
        (STEPS, "[1_000, 2_000]", "[1_000, 2_000]"),
        (RADII, "0.1", "[0.1]"),
        (RADII, "0.1, 1e-2, .5", "[0.1, 1e-2, 0.5]"),
        (TAGS, "paper, first try", '["paper", "first try"]'),
        (TAGS, "", "[]"),
        (WORD, "10", '"10"'),
        (WORD, 'say "hi"', '"say \\"hi\\""'),
        (WORD, '"quoted"', '"quoted"'),
        (FLAG, "true", "true"),
    ],
)
def test_quotes_and_brackets_may_be_left_out(setting: Setting, text: str, raw: str) -> None:
    found, problem = typed(setting, text)
    assert problem is None and found == raw


@pytest.mark.parametrize(
    "setting, text", [(NUMBER, "0"), (NUMBER, "fast"), (STEPS, "1.5"), (RADII, "0.1, no"), (FLAG, "1"), (NUMBER, "")]
)
def test_what_does_not_fit_is_told(setting: Setting, text: str) -> None:
    problem = typed(setting, text)[1]
    assert problem is not None and problem.allowed == setting.describe()


# -- differences and saving --------------------------------------------------------------------------------------------


def test_differences_of_settings_and_of_text() -> None:
    before, after = values("[meta]\nepochs = 3\n"), values("[meta]\nepochs = 4\n[penalty.l2]\n")
    changed = dict((key, (old, new)) for key, old, new in preset_edit.changed_settings(before.preset, after.preset))
    assert changed["meta.epochs"] == (3, 4)
    assert changed["penalty.l2.weight"] == (preset_edit.ABSENT, 1.0)
    lines = preset_edit.unified(before.text, after.text, ("saved", "now"))
    assert "-epochs = 3" in lines and "+epochs = 4" in lines
    assert preset_edit.unified("a\n", "a\n", ("saved", "now")) == []


def test_saving_is_atomic_and_refused_for_what_is_not_the_users(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    preset_edit.save("seed = 1\n", file)
    assert file.read_text() == "seed = 1\n" and [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    with pytest.raises(LregError, match="shipped preset"):
        preset_edit.save("", shipped()["lo"])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(LregError, match="run's own preset"):
        preset_edit.save("", tmp_path / "preset.toml")
    with pytest.raises(LregError, match="no such folder"):
        preset_edit.save("", tmp_path / "nowhere" / "mine.toml")


def test_a_preset_saved_elsewhere_extends_the_same_one(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("")
    (tmp_path / "deep").mkdir()
    old, new = tmp_path / "mine.toml", tmp_path / "deep" / "mine.toml"
    assert preset_edit.moved('extends = "base.toml" # same\n', old, new) == 'extends = "../base.toml" # same\n'
    assert preset_edit.moved('extends = "lo.toml"\n', old, new) == 'extends = "lo.toml"\n'
    (tmp_path / "deep" / "lo.toml").write_text("")  # another one of that name is in the new place
    assert preset_edit.moved('extends = "lo.toml"\n', shipped()["lo-sam"], new) == 'extends = "lo"\n'


def test_what_is_too_large_to_edit_is_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"name = '{'x' * 6000}'")
    with pytest.raises(PresetError, match="larger file"):
        preset_edit.take_up(str(tmp_path / "mine.toml"))


def test_bytes_that_are_no_text_are_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(PresetError, match="UTF-8"):
        preset_edit.take_up(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(("text", "meant"), [("3", 3), ("3.0", 3.0), ("1e3", 1e3), ("-.5", -0.5), ("three", "three")])
def test_a_typed_number_is_what_it_looks_like(text, meant):
    assert number(text) == meant and isinstance(number(text), type(meant))
