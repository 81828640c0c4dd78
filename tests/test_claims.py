"""Claims: that every rule decides as it is written, from figures that are known exactly."""

from __future__ import annotations

import pytest
from reporting import MLP, RELU, Level, Study, baseline, evaluation, plain, sam, untrained

from engine.study.claims import MIXED, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Claim, claims, spearman
from engine.study.claims_xh import table_1
from engine.study.evidence import gather
from engine.study.plan import Axis

LR, XH = {"report": {"paper": "lr"}}, {"report": {"paper": "xh"}}


def decided(study: Study) -> dict[str, Claim]:
    groups = claims(gather(study.plan, study.folder))
    return {claim.name: claim for group in groups.values() for claim in group}


def two_arms(root, mlp: Level, relu: Level | None = None, usual: Level | None = None, **changes) -> Study:
    """none and sam, on one task or two. `usual`: what none reaches."""
    tasks = {MLP: mlp, **({RELU: relu} if relu else {})}
    levels = {"none": dict.fromkeys(tasks, usual or Level()), "sam": tasks}
    return Study(root, [plain(), sam()], levels, changes={**LR, **changes})


@pytest.mark.parametrize(
    ("mlp", "relu", "verdict", "said"),
    [
        (0.92, 0.91, SUPPORTED, "better in 2 of 2"),
        (0.92, 0.90, MIXED, "better in 1, not found in 1 of 2"),
        (0.92, 0.88, MIXED, "better in 1, worse in 1 of 2"),
        (0.88, 0.90, NOT_SUPPORTED, "worse in 1, not found in 1 of 2"),
    ],
)
def test_accuracy_is_decided_task_by_task(tmp_path, mlp, relu, verdict, said):
    study = two_arms(tmp_path, Level(accuracy=mlp), Level(accuracy=relu, wobble=0.1 * (relu == 0.9))).finish()
    claim = decided(study)["C1"]
    assert (claim.verdict, said in claim.reason) == (verdict, True), claim.reason


def test_flatness_counts_at_matched_loss_only(tmp_path):
    """An arm that looks flatter, as it has moved less far along the same curve, has taught no flatness."""
    slow = two_arms(tmp_path / "slow", Level(loss=1.0, sharpness=0.5), usual=Level(loss=0.5)).finish()
    on_the_way = decided(slow)["C2"]
    assert on_the_way.verdict == SUPPORTED  # sharpness 0.5 at a loss where the other has 1
    same = two_arms(tmp_path / "same", Level(sharpness=1.0)).finish()
    assert decided(same)["C2"].verdict == NOT_SUPPORTED
    flat = decided(two_arms(tmp_path / "flat", Level(sharpness=0.8)).finish())["C2"]
    assert flat.verdict == SUPPORTED
    (finding,) = [item for item in flat.findings if item.figure.name == "sharpness"]
    assert finding.interval.mean == pytest.approx(0.8)


def test_transfer_leaves_out_the_task_of_meta_training(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.8, sharpness=2.0), Level(accuracy=0.95, sharpness=0.5)).finish()
    claim = decided(study)["C3"]
    assert claim.verdict == SUPPORTED
    assert {finding.task for finding in claim.findings} == {RELU}
    assert "cifar10/cnn" in claim.reason  # of the paper's grid, not tested


def test_an_effect_that_turns_with_the_radius_does_not_hold_over_radii(tmp_path):
    turned = Level(sharpness={"0.01": 0.8, "0.05": 0.9, "0.1": 1.3})
    assert decided(two_arms(tmp_path / "turned", turned).finish())["C4"].verdict == NOT_SUPPORTED
    assert decided(two_arms(tmp_path / "flat", Level(sharpness=0.8)).finish())["C4"].verdict == SUPPORTED
    sharper = decided(two_arms(tmp_path / "sharper", Level(sharpness=1.2)).finish())["C4"]
    assert sharper.verdict == NOT_TESTED
    assert "nothing that could hold" in sharper.reason


def test_sharp_landscapes_are_compared_with_the_usual_one(tmp_path):
    more = two_arms(tmp_path / "more", Level(0.91, sharpness=0.9), Level(0.95, sharpness=0.5)).finish()
    assert decided(more)["C5"].verdict == SUPPORTED
    less = two_arms(tmp_path / "less", Level(0.95, sharpness=0.5), Level(0.91, sharpness=0.9)).finish()
    assert decided(less)["C5"].verdict == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("gam", "other", "verdict"),
    [(0.90, 0.90, SUPPORTED), (0.92, 0.90, MIXED), (0.92, 0.92, NOT_SUPPORTED), (0.88, 0.92, SUPPORTED)],
)
def test_the_hard_task_is_expected_to_show_nothing(tmp_path, gam, other, verdict):
    task = "cifar10/cnn"
    levels = {name: {task: Level(accuracy, wobble=0.5)} for name, accuracy in (("gam", gam), ("sam", other))}
    arms = [plain(), plain("gam", penalty={"gam": {}}), sam()]
    study = Study(tmp_path, arms, {"none": {task: Level()}, **levels}, changes=LR).finish()
    assert decided(study)["C6"].verdict == verdict


def test_the_sweep_of_rho_compares_the_balanced_one_with_both_ends(tmp_path):
    at_the_end = {0.001: 0.3, 0.01: 0.1, 0.1: 0.2}

    def figures(cell):
        rho = cell.point.get("penalty.sam.rho")
        return {"sharpness": at_the_end.get(rho, 1.0) * (1 + 0.1 * cell.seed)}

    arms = [plain(), sam("sam", Axis("penalty.sam.rho", values=tuple(at_the_end)))]
    assert decided(Study(tmp_path / "dip", arms, figures=figures, changes=LR).finish())["C7"].verdict == SUPPORTED
    at_the_end[0.1] = 0.05
    assert decided(Study(tmp_path / "falls", arms, figures=figures, changes=LR).finish())["C7"].verdict == MIXED
    ends = [plain(), sam("sam", Axis("penalty.sam.rho", values=(0.01, 0.1)))]
    assert decided(Study(tmp_path / "ends", ends, figures=figures, changes=LR).finish())["C7"].verdict == NOT_TESTED


@pytest.mark.parametrize(
    ("spread", "lost", "verdict"), [(0.01, 1, SUPPORTED), (1.0, 8, NOT_SUPPORTED), (0.01, 8, MIXED)]
)
def test_smoothing_is_judged_by_spread_and_diverged_unrolls(tmp_path, spread, lost, verdict):
    def loss(cell):
        return 0.3 + 0.01 * cell.seed * (spread if cell.arm == "smooth" else 1.0)

    def figures(cell):
        return {"diverged": lost if cell.arm == "smooth" else 8}

    arms = [plain(), plain("smooth", penalty={"smooth": {}})]
    claim = decided(Study(tmp_path, arms, loss=loss, figures=figures, changes=LR).finish())["C8"]
    assert claim.verdict == verdict
    assert [finding.row for finding in claim.findings] == ["smooth against none"] * 2


def test_explicit_penalties_are_met_at_equal_passes(tmp_path):
    """SAM takes two passes a step: after 50 of its steps it has had as many as the others after 100."""
    study = two_arms(tmp_path, Level(accuracy=0.91)).finish()
    run = study.runs_of("none")[0]
    later = Level(0.99, sharpness=0.1)
    explicit = baseline(MLP, later, "sam-sgdm", passes_per_step=2)
    for seed in explicit["seeds"]:
        seed["marks"][0] |= {"test_accuracy": 0.85, "sharpness": {"0.05": 1.0}}
    study.put(run, explicit)
    claim = decided(study)["C9"]
    assert claim.verdict == SUPPORTED
    assert {item.arms for item in claim.findings} == {("sam", "sam-sgdm")}
    at_one_pass = {**explicit, "passes_per_step": 1}
    other = two_arms(tmp_path / "other", Level(accuracy=0.91)).finish()
    other.put(other.runs_of("none")[0], at_one_pass)
    assert decided(other)["C9"].verdict == NOT_SUPPORTED


def test_what_a_constant_factor_does_too_is_no_flatness(tmp_path):
    """The reference's frontier: at a loss of 0.5, one of its scales has sharpness 0.7 of its own."""
    for name, factor, verdict in (("above", 0.8, NOT_SUPPORTED), ("below", 0.5, SUPPORTED)):
        study = two_arms(tmp_path / name, Level(loss=0.5, sharpness=factor)).finish()
        for run in study.runs_of("none"):
            seed = int(run.name.split("-s")[-1].split("-")[0])
            for scale, loss, sharpness in ((0.5, 0.7, 1.2), (1.4, 0.4, 0.7), (2.0, 0.6, 0.7)):
                study.put(run, evaluation(MLP, Level(loss=loss, sharpness=sharpness), seed, scale=scale))
        assert decided(study)["K1"].verdict == verdict


def test_the_scale_frontier_of_another_learned_optimizer_says_nothing(tmp_path):
    """dm-smooth is as flat as dm: that both lie below the frontier of simple is no work of the penalty."""
    dm = {"optimizer": {"kind": "dm"}}
    arms = [plain("none"), plain("dm", **dm), plain("dm-smooth", **dm, penalty={"smooth": {}}), sam("control", rho=0.0)]
    levels = {"none": Level(), **dict.fromkeys(("dm", "dm-smooth", "control"), Level(sharpness=0.5))}
    study = Study(tmp_path, arms, {name: {MLP: level} for name, level in levels.items()}, changes=XH).finish()
    for seed, run in enumerate(study.runs_of("none")):
        for scale, loss in ((0.5, 0.7), (2.0, 0.4)):
            study.put(run, evaluation(MLP, Level(loss=loss), seed, scale=scale))
    assert decided(study)["K1"].verdict == NOT_TESTED


def test_a_re_weighted_meta_loss_is_a_control_of_its_own(tmp_path):
    levels = {"none": Level(), "sam": Level(0.92, sharpness=0.8), "reweighted": Level(0.92, sharpness=0.8)}
    arms = [plain(), sam(), sam("reweighted", rho=0.0)]
    study = Study(tmp_path, arms, {name: {MLP: level} for name, level in levels.items()}, changes=LR).finish()
    found = decided(study)
    assert found["C1"].verdict == SUPPORTED
    assert [finding.arms for finding in found["C1"].findings] == [("sam", "none")]  # the control is no regulariser
    assert found["K2"].verdict == NOT_SUPPORTED


def test_meta_training_is_compared_with_fresh_meta_parameters(tmp_path):
    study = two_arms(tmp_path, Level()).finish()
    assert decided(study)["K3"].verdict == NOT_TESTED
    for seed, run in enumerate(study.runs_of("none")):
        study.put(run, untrained(MLP, Level(loss=0.9), seed))
        study.put(run, baseline(MLP, Level(loss=0.2), "ngdm"))
    assert decided(study)["K3"].verdict == MIXED


def test_few_pairs_decide_nothing(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.95), seeds=(0,))
    for cell in study.plan.grid():
        path = study.run(cell)
        found = evaluation(MLP, Level(accuracy=0.95), cell.seed)
        for file in (path / "transfer").iterdir():
            file.unlink()
        study.put(path, {**found, "seeds": found["seeds"][:2]})
    claim = decided(study)["C1"]
    assert claim.verdict == NOT_TESTED
    assert "too few pairs" in claim.reason


def test_rank_agreement():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == -1


def xh_study(root, **accuracies: float) -> Study:
    """Arms by the regulariser's name, on the paper's task; meta-trained for 10 inner steps, as the tiny presets are."""
    task = "cifar10/conv3"
    arms = [plain(name, penalty={} if name == "none" else {name: {}}) for name in accuracies]
    levels = {name: {task: Level(accuracy)} for name, accuracy in accuracies.items()}
    return Study(root, arms, levels, changes=XH).finish()


def test_the_numbers_of_table_1_stand_beside_ours(tmp_path):
    study = xh_study(tmp_path, none=0.69, smooth=0.72, orthogonal=0.1)
    numbers = {item.regulariser: item for item in table_1(gather(study.plan, study.folder))}
    assert numbers["smooth"].paper == (72.50, 0.49)
    assert numbers["smooth"].mean == pytest.approx(72.2)  # 72 and the mean of 0, 0.1, ... 0.4
    assert numbers["smooth"].remark == "ours after 100 steps"
    assert (numbers["l2"].mean, numbers["l2"].remark) == (None, "not evaluated")


def test_what_diverged_is_said_beside_the_numbers_of_table_1(tmp_path):
    study = xh_study(tmp_path, none=0.69)
    run = study.runs_of("none")[0]
    study.put(run, evaluation("cifar10/conv3", Level(diverged=True), created="2026-11-21T10:00:00Z"))
    number = table_1(gather(study.plan, study.folder))[0]
    assert (number.n, number.remark) == (4, "ours after 100 steps; 5 of 25 optimizees diverged and are left out")


def test_the_claims_of_xiong_and_hsieh(tmp_path):
    found = decided(xh_study(tmp_path, none=0.69, smooth=0.72, l2=0.70, orthogonal=0.0995))
    assert (found["X1"].verdict, found["X2"].verdict) == (NOT_TESTED, SUPPORTED)  # 100 steps are beyond 10
    assert found["X3"].verdict == SUPPORTED
    assert found["X5"].verdict == SUPPORTED
    worse = decided(xh_study(tmp_path / "worse", none=0.72, smooth=0.69, l2=0.70, orthogonal=0.5))
    assert [worse[name].verdict for name in ("X2", "X3", "X5")] == [NOT_SUPPORTED, MIXED, NOT_SUPPORTED]


def test_without_a_paper_there_are_the_controls(tmp_path):
    study = two_arms(tmp_path, Level(), report={}).finish()
    assert set(decided(study)) == {"K1", "K2", "K3"}
