"""The runs that a study stands for."""

from __future__ import annotations

import pytest
from reporting import MLP, Level, Study, evaluation, plain, sam

from engine.base.errors import RunError
from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan.plan import StudyAxis, TransferSpec
from engine.study.plan.snapshot import transferred_runs, winner_runs

RHO = StudyAxis("penalty.sam.rho", values=(0.01, 0.1))


def small(tmp_path, **changes) -> Study:
    """Two points of an arm, of which the second is the better, and the plain arm that it is compared with."""

    def loss(cell):
        return 0.2 if cell.point.get(RHO.key) == 0.1 else 0.3

    changes = {"seeds": (0, 1), "reference": "none", "transfer": TransferSpec(to=(MLP,)), **changes}
    return Study(tmp_path, [sam("sam", RHO), plain()], {}, loss, changes=changes)


def ids(runs) -> list[str]:
    return [run.id.split("-", 3)[-1].rsplit("-", 1)[0] for run in runs]


def test_winners_that_were_transferred_the_reference_first(tmp_path):
    found = small(tmp_path)
    for cell in found.plan.grid():
        path = found.run(cell)
        if (cell.arm, cell.seed) != ("none", 1):
            found.put(path, evaluation(MLP, Level(), cell.seed))
    study = RunReader(found.folder)
    assert ids(transferred_runs(study)) == ["none-s0", "sam-rho0.1-s0", "sam-rho0.1-s1"]
    assert {arm: ids(runs) for arm, runs in winner_runs(study).items()} == {
        "none": ["none-s0", "none-s1"],
        "sam": ["sam-rho0.1-s0", "sam-rho0.1-s1"],
    }


def test_before_that_one_line_says_how_far_it_is(tmp_path):
    found = small(tmp_path)
    Run(found.folder).set_status(state="stopped", message="by\nhand")
    study = RunReader(found.folder)
    with pytest.raises(RunError, match=f"^study {study.id}: no arm of it has a winner yet [^\n]*$"):
        transferred_runs(study)
    for cell in found.plan.grid():
        found.run(cell)
    with pytest.raises(RunError, match=f"^study {study.id}: none of its winners has been transferred yet [^\n]*$"):
        transferred_runs(study)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"name": "x", "seeds": 5, "arms": [{}]}'])
def test_a_damaged_study_is_told_in_one_line(tmp_path, text):
    found = small(tmp_path)
    (found.folder / "study.json").write_text(text)
    with pytest.raises(RunError, match=r"^[^\n]*study\.json: [^\n]*$"):
        winner_runs(RunReader(found.folder))


def test_a_study_with_too_many_runs_is_not_counted_through(tmp_path):
    found = small(tmp_path)
    many = ", ".join(map(str, range(20_000)))
    text = (found.folder / "study.json").read_text().replace("\n      0.01,", f"\n{many},")
    (found.folder / "study.json").write_text(text)
    with pytest.raises(RunError, match="allowed: at most 10000"):
        winner_runs(RunReader(found.folder))


def test_a_study_is_found_by_its_id_its_last_letters_and_its_name(tmp_path):
    found = small(tmp_path)
    for cell in found.plan.grid():
        found.run(cell)
    store, name = RunStore(found.store), found.folder.name
    for reference in (name, name[-4:], "tried", str(found.folder)):
        assert store.resolve(reference).path == found.folder
    other = small(tmp_path)
    with pytest.raises(RunError, match=f'"tried" could be any of 2: .*{other.folder.name}'):
        store.resolve("tried")
