"""Claims: that every rule decides as it is written, from figures that are known exactly."""

from __future__ import annotations

import pytest
from reporting import MLP, RELU, Level, Study, baseline, evaluation, plain, sam, untrained

from engine.study.plan.plan import StudyAxis
from engine.study.report.claim import (
    BETTER,
    CONTRADICTED,
    MIXED,
    NOT_FOUND,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    WORSE,
    Claim,
    Finding,
)
from engine.study.report.evidence import gather
from engine.study.report.papers.xh import table_1
from engine.study.report.report import claims

LR, XH = {"report": {"paper": "lr"}}, {"report": {"paper": "xh"}}


def decided(study: Study) -> dict[str, Claim]:
    groups = claims(gather(study.plan, study.folder))
    return {claim.name: claim for group in groups.values() for claim in group}


LATER = "2026-11-21T10:00:00Z"


def changed(found: dict, change, mark: int = -1) -> dict:
    """An evaluation in which a mark of every optimizee says something else: `change` is told its seed and the mark."""
    for seed in found["seeds"]:
        seed["marks"][mark] |= change(seed["seed"], seed["marks"][mark])
    return found


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
        (0.88, 0.90, CONTRADICTED, "worse in 1, not found in 1 of 2"),
        (0.90, 0.90, NOT_SUPPORTED, "not found in 2 of 2"),
    ],
)
def test_accuracy_is_decided_task_by_task(tmp_path, mlp, relu, verdict, said):
    study = two_arms(tmp_path, Level(accuracy=mlp), Level(accuracy=relu, wobble=0.1 * (relu == 0.9))).finish()
    claim = decided(study)["C1"]
    assert (claim.verdict, said in claim.reason) == (verdict, True), claim.reason


@pytest.mark.parametrize(("meta_seeds", "verdict"), [(1, NOT_TESTED), (2, NOT_TESTED), (3, SUPPORTED)])
def test_verdicts_need_three_meta_seeds(tmp_path, meta_seeds, verdict):
    claim = decided(two_arms(tmp_path, Level(accuracy=0.95), seeds=tuple(range(meta_seeds))).finish())["C1"]
    assert claim.verdict == verdict
    assert ("1 with too few meta-seeds" in claim.reason) == (verdict == NOT_TESTED)


@pytest.mark.parametrize(("lost", "word"), [((0, 1, 2), WORSE), ((), BETTER)])
def test_an_arm_that_diverged_more_often_is_worse_whatever_its_survivors_reach(tmp_path, lost, word):
    study = two_arms(tmp_path, Level(accuracy=0.95, sharpness=0.5)).finish()
    for seed in lost:
        study.put(study.runs_of("sam")[seed], evaluation(MLP, Level(diverged=True), seed, created=LATER))
    found = decided(study)
    assert {item.word for name in ("C1", "C2") for item in found[name].findings} == {word}
    assert not lost or found["C1"].verdict == CONTRADICTED


def test_an_arm_of_which_nothing_is_left_to_measure_is_worse(tmp_path):
    """Its figures were not finite, so they are not in its evaluations."""
    study = two_arms(tmp_path, Level(), Level(accuracy=0.95)).finish()
    for seed, run in enumerate(study.runs_of("sam")):
        lost = evaluation(MLP, Level(diverged=True), seed, created=LATER)
        for optimizee in lost["seeds"]:
            optimizee["marks"] = [{"inner_step": mark["inner_step"]} for mark in optimizee["marks"]]
        study.put(run, lost)
    assert {item.row: item.word for item in decided(study)["C1"].findings} == {MLP: WORSE, RELU: BETTER}


def test_that_the_reference_diverged_makes_an_arm_better_but_not_flatter(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.9, sharpness=1.0)).finish()
    for seed, run in enumerate(study.runs_of("none")):
        lost = evaluation(MLP, Level(), seed, created=LATER)
        for optimizee in lost["seeds"][:3]:
            optimizee["diverged"] = True
        study.put(run, lost)
    found = decided(study)
    assert found["C1"].verdict == SUPPORTED and "diverged -60%" in found["C1"].findings[0].text
    assert found["C2"].verdict == NOT_SUPPORTED


def test_without_all_its_arms_a_claim_is_at_most_mixed(tmp_path):
    """gam has no winner, as one of its runs failed; gsam was evaluated nowhere; sam is better everywhere."""
    arms = [plain(), sam(), *(plain(name, penalty={name: {}}) for name in ("gsam", "gam"))]
    study = Study(tmp_path, arms, {"none": {MLP: Level()}, "sam": {MLP: Level(accuracy=0.95)}}, changes=LR)
    for cell in study.plan.grid():
        study.run(cell, *(("failed", "not finite") if (cell.arm, cell.seed) == ("gam", 0) else ()))
    study.transfer()
    claim = decided(study)["C1"]
    assert claim.verdict == MIXED and not claim.waiting
    assert "missing: gsam (not evaluated), gam (failed: no winner)" in claim.reason


def test_comparisons_without_pairs_make_a_claim_mixed_and_are_named(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.95), Level(accuracy=0.95)).finish()
    for seed, run in enumerate(study.runs_of("sam")[2:], 2):
        study.put(run, changed(evaluation(RELU, Level(), seed, created=LATER), lambda *_: {"test_accuracy": None}))
    claim = decided(study)["C1"]
    assert (claim.verdict, "missing: sam (too few pairs in 1)" in claim.reason) == (MIXED, True)


def test_an_unfinished_study_says_so_at_the_claims_it_touches(tmp_path):
    arms = [plain(), sam(), plain("l2", penalty={"l2": {}})]
    study = Study(tmp_path, arms, {"none": {MLP: Level()}, "sam": {MLP: Level(accuracy=0.95)}}, changes=LR)
    for cell in study.plan.grid():
        if cell.arm != "l2":
            study.run(cell)
    study.transfer()
    found = decided(study)
    assert (found["C1"].verdict, found["C1"].waiting) == (SUPPORTED, ())
    assert found["K1"].waiting == ("l2",)
    for item in (study.store / ".transfers").iterdir():
        (item / "status.json").write_text('{"state": "running"}')
    assert decided(study)["C1"].waiting == ("none", "sam")


def test_words_are_corrected_for_the_number_of_comparisons():
    """Of five comparisons, p = 0.012 is not rare enough; alone it is."""
    values = (0.012, 0.3, 0.6, 0.7, 0.9)
    five = [Finding("task", str(p), BETTER if p < 0.05 else NOT_FOUND, p=p) for p in values]
    question = Claim("C0", "better", "ours", "a rule", "nothing there")
    assert question.decided(five).verdict == NOT_SUPPORTED
    assert question.decided(five[:1]).verdict == SUPPORTED
    assert question.decided([*five, Finding("task", "diverged", WORSE)]).verdict == CONTRADICTED  # no p: not corrected


def test_flatness_counts_at_matched_loss_only(tmp_path):
    """An arm that looks flatter, as it has moved less far along the same curve, has taught no flatness."""
    slow = two_arms(tmp_path / "slow", Level(loss=1.0, sharpness=0.5), usual=Level(loss=0.5)).finish()
    on_the_way = decided(slow)["C2"]
    assert on_the_way.verdict == SUPPORTED  # sharpness 0.5 at a loss where the other has 1
    same = two_arms(tmp_path / "same", Level(sharpness=1.0)).finish()
    assert decided(same)["C2"].verdict == NOT_SUPPORTED
    flat = decided(two_arms(tmp_path / "flat", Level(sharpness=0.8)).finish())["C2"]
    assert flat.verdict == SUPPORTED
    (finding,) = [item for item in flat.findings if item.at.name == "sharpness"]
    assert finding.interval.mean == pytest.approx(0.8)


def test_transfer_leaves_out_the_task_of_meta_training(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.8, sharpness=2.0), Level(accuracy=0.95, sharpness=0.5)).finish()
    claim = decided(study)["C3"]
    assert claim.verdict == SUPPORTED
    assert {finding.task for finding in claim.findings} == {RELU}
    assert "cifar10/cnn" in claim.reason  # of the paper's grid, not tested


def test_an_effect_that_turns_with_the_radius_does_not_hold_over_radii(tmp_path):
    turned = Level(sharpness={"0.01": 0.8, "0.05": 0.9, "0.1": 1.3})
    assert decided(two_arms(tmp_path / "turned", turned).finish())["C4"].verdict == CONTRADICTED
    assert decided(two_arms(tmp_path / "flat", Level(sharpness=0.8)).finish())["C4"].verdict == SUPPORTED
    sharper = decided(two_arms(tmp_path / "sharper", Level(sharpness=1.2)).finish())["C4"]
    assert sharper.verdict == NOT_TESTED
    assert "nothing that could hold" in sharper.reason


def test_sharp_landscapes_are_compared_with_the_usual_one(tmp_path):
    more = two_arms(tmp_path / "more", Level(0.91, sharpness=0.9), Level(0.95, sharpness=0.5)).finish()
    assert decided(more)["C5"].verdict == SUPPORTED
    less = two_arms(tmp_path / "less", Level(0.95, sharpness=0.5), Level(0.91, sharpness=0.9)).finish()
    assert decided(less)["C5"].verdict == CONTRADICTED


def test_sharp_landscapes_are_compared_within_meta_seeds(tmp_path):
    """Effects go from 0 to 4 points with the meta-seed, on both tasks; that on mlp-relu is a point more in each."""
    study = two_arms(tmp_path, Level(), Level()).finish()
    for seed, run in enumerate(study.runs_of("sam")):
        for task, more in ((MLP, 0.0), (RELU, 0.01)):
            level = Level(accuracy=0.9 + 0.01 * seed + more)
            study.put(run, evaluation(task, level, seed, created=LATER))
    words = {item.row: item.word for item in decided(study)["C5"].findings}
    assert words == {"digits, accuracy": BETTER, "digits, sharpness": NOT_FOUND}


@pytest.mark.parametrize(
    ("gam", "other", "verdict"),
    [
        (0.90, 0.90, NOT_SUPPORTED),  # that nothing was found is no evidence
        (0.92, 0.90, MIXED),
        (0.92, 0.92, CONTRADICTED),
        (0.88, 0.92, SUPPORTED),
        (0.88, 0.88, MIXED),
    ],
)
def test_the_hard_task_is_expected_to_show_nothing(tmp_path, gam, other, verdict):
    task = "cifar10/cnn"
    levels = {name: {task: Level(accuracy, wobble=0.5)} for name, accuracy in (("gam", gam), ("sam", other))}
    arms = [plain(), plain("gam", penalty={"gam": {}}), sam()]
    study = Study(tmp_path, arms, {"none": {task: Level()}, **levels}, changes=LR).finish()
    assert decided(study)["C6"].verdict == verdict


def test_what_gam_does_on_the_hard_task_is_not_known_without_gam(tmp_path):
    task = "cifar10/cnn"
    levels = {"none": {task: Level()}, "sam": {task: Level(0.92)}, "sam2": {task: Level(0.88)}}
    claim = decided(Study(tmp_path, [plain(), sam(), sam("sam2")], levels, changes=LR).finish())["C6"]
    assert (claim.verdict, "no arm with gam" in claim.reason) == (MIXED, True)


def test_the_sweep_of_rho_compares_the_balanced_one_with_both_ends(tmp_path):
    at_the_end = {0.001: 0.3, 0.01: 0.1, 0.1: 0.2}

    def figures(cell):
        rho = cell.point.get("penalty.sam.rho")
        return {"sharpness": at_the_end.get(rho, 1.0) * (1 + 0.1 * cell.seed)}

    arms = [plain(), sam("sam", StudyAxis("penalty.sam.rho", values=tuple(at_the_end)))]
    assert decided(Study(tmp_path / "dip", arms, figures=figures, changes=LR).finish())["C7"].verdict == SUPPORTED
    at_the_end[0.1] = 0.05
    assert decided(Study(tmp_path / "falls", arms, figures=figures, changes=LR).finish())["C7"].verdict == MIXED
    ends = [plain(), sam("sam", StudyAxis("penalty.sam.rho", values=(0.01, 0.1)))]
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


RHOS = StudyAxis("penalty.sam.rho", values=(0.1, 0.3))


@pytest.mark.parametrize(
    ("rhos", "rows"), [((0.1, 0.3), {"both against sam (penalty.sam.rho = 0.3)"}), ((0.1,), set())]
)
def test_smoothing_is_compared_with_the_candidate_of_equal_penalties(tmp_path, rhos, rows):
    """The winner of both has rho 0.3, that of sam 0.1: between the winners not smooth alone would differ."""

    def loss(cell):
        best = 0.3 if cell.arm == "both" else 0.1
        return 0.3 + 0.01 * cell.seed + (cell.point.get("penalty.sam.rho", best) != best)

    both = plain("both", penalty={"sam": {"rho": 0.3}, "smooth": {}})
    arms = [plain(), sam("sam", StudyAxis("penalty.sam.rho", values=rhos)), both]
    levels = {name: {MLP: Level()} for name in ("none", "sam", "both")}
    found = decided(Study(tmp_path / "lr", arms, levels, loss, changes=LR).finish())["C8"]
    assert {item.row for item in found.findings} == rows
    assert ("both (no finished candidate without smooth" in found.reason) == (not rows)
    longer = decided(Study(tmp_path / "xh", arms, levels, loss, changes=XH).finish())["X2"]
    assert {item.column for item in longer.findings} == rows


def test_of_two_twins_the_one_with_the_same_other_settings_is_taken(tmp_path):
    """That of another length of meta-training comes first in the study, and is better on validation."""
    arms = [plain("longer", meta={"epochs": 9}), plain(), plain("smooth", penalty={"smooth": {}})]
    levels = {arm.name: {MLP: Level()} for arm in arms}
    claim = decided(Study(tmp_path, arms, levels, lambda cell: 0.1 * (cell.arm != "longer"), changes=XH).finish())["X2"]
    assert {item.column for item in claim.findings} == {"smooth against none"}


def test_a_twin_that_was_not_evaluated_is_named(tmp_path):
    arms = [plain(), sam("sam", RHOS), plain("both", penalty={"sam": {"rho": 0.3}, "smooth": {}})]
    levels = {"none": {MLP: Level()}, "both": {MLP: Level()}}
    study = Study(tmp_path, arms, levels, lambda cell: cell.point.get("penalty.sam.rho", 0.2), changes=XH).finish()
    reason = decided(study)["X2"].reason
    assert "both (its twin, sam (penalty.sam.rho = 0.3), was not evaluated)" in reason


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
    assert decided(other)["C9"].verdict == CONTRADICTED


def test_sharpness_against_explicit_penalties_counts_at_matched_loss(tmp_path):
    """The arm comes further in as many passes, and is flatter there; at the other's loss it was sharper."""
    study = two_arms(tmp_path, Level()).finish()
    for seed, run in enumerate(study.runs_of("sam")):
        study.put(run, changed(evaluation(MLP, Level(), seed), lambda *_: {"sharpness": {"0.05": 0.5}}, mark=1))
        newest = evaluation(MLP, Level(), seed, created=LATER)
        study.put(run, changed(newest, lambda *_: {"sharpness": {"0.05": 2.0}}, mark=0))
    study.put(study.runs_of("none")[0], baseline(MLP, Level(), "sam-sgdm", passes_per_step=2))
    (sharpness,) = [item for item in decided(study)["C9"].findings if item.row.endswith("sharpness")]
    assert (sharpness.setting, sharpness.word) == ("matched loss", WORSE)


def test_an_explicit_penalty_that_was_tuned_for_other_passes_is_said(tmp_path):
    for tuned_at, said in ((100, True), (50, False)):
        study = two_arms(tmp_path / str(tuned_at), Level(accuracy=0.91)).finish()
        facts = {"passes_per_step": 2, "tuned_at": tuned_at}
        study.put(study.runs_of("none")[0], baseline(MLP, Level(0.8, sharpness=2.0), "sam-sgdm", **facts))
        assert ("sam-sgdm had been tuned for more passes" in decided(study)["C9"].reason) == said


OFFSETS = (0.03, 0.02, -0.01, 0.03, -0.01)  # of five optimizees: their mean is 1.3 standard errors from 0


def test_the_optimizees_of_a_baseline_do_not_multiply_with_meta_seeds(tmp_path):
    """Five optimizees of one baseline are five, however many meta-seeds they are compared with."""
    study = two_arms(tmp_path, Level()).finish()

    def worse(seed, mark):
        off = OFFSETS[seed]
        rise = {radius: value * (1 + 20 * off) for radius, value in mark["sharpness"].items()}
        return {"test_accuracy": 0.9 + 0.001 * seed - off, "train_loss": mark["train_loss"] + off, "sharpness": rise}

    for name in ("sam-sgdm", "ngdm"):
        lost = changed(changed(baseline(MLP, Level(), name), worse, mark=0), worse, mark=1)
        study.put(study.runs_of("none")[0], lost)
    found = decided(study)
    assert [(item.row, item.word) for item in found["C9"].findings] == [
        (f"{MLP}, accuracy", NOT_FOUND),
        (f"{MLP}, sharpness", NOT_FOUND),
    ]
    assert [item.word for item in found["K3"].findings] == [NOT_FOUND]
    assert found["C9"].findings[0].interval.n == 25


def test_what_a_constant_factor_does_too_is_no_flatness(tmp_path):
    """The reference's frontier: at a loss of 0.5, one of its scales has sharpness 0.7 of its own."""
    for name, factor, verdict in (("above", 0.8, CONTRADICTED), ("below", 0.5, SUPPORTED)):
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


def test_an_arm_is_held_against_the_control_that_weighs_as_much(tmp_path):
    """Whatever its penalties are called; one of another weight, or with a smoothness penalty, has no control here."""
    arms = [
        plain(),
        plain("gsam", penalty={"gsam": {"weight": 2.0}}),
        plain("gsam-high", penalty={"gsam": {"weight": 6.0}}),
        plain("gsam-smooth", penalty={"gsam": {"weight": 2.0}, "smooth": {}}),
        sam("reweighted", rho=0.0),
        sam("reweighted-3", rho=0.0, weight=2.0),
    ]
    levels = {
        name: {MLP: Level()} for name in ("none", "gsam", "gsam-high", "gsam-smooth", "reweighted", "reweighted-3")
    }
    study = Study(tmp_path, arms, levels, changes=LR).finish()
    assert {finding.arms for finding in decided(study)["K2"].findings} == {("gsam", "reweighted-3")}


def test_meta_training_is_compared_with_fresh_meta_parameters(tmp_path):
    study = two_arms(tmp_path, Level()).finish()
    assert decided(study)["K3"].verdict == NOT_TESTED
    for seed, run in enumerate(study.runs_of("none")):
        study.put(run, untrained(MLP, Level(loss=0.9), seed))
        study.put(run, baseline(MLP, Level(loss=0.2), "ngdm"))
    assert decided(study)["K3"].verdict == MIXED


def test_few_pairs_decide_nothing(tmp_path):
    study = two_arms(tmp_path, Level(accuracy=0.95)).finish()
    for seed, run in enumerate(study.runs_of("sam")[2:], 2):
        study.put(run, changed(evaluation(MLP, Level(), seed, created=LATER), lambda *_: {"test_accuracy": None}))
    claim = decided(study)["C1"]
    assert claim.verdict == NOT_TESTED
    assert "too few pairs" in claim.reason


def xh_study(root, **accuracies: float) -> Study:
    """Arms by the regulariser's name, on the paper's task; meta-trained for 10 inner steps, as the tiny presets are."""
    task = "cifar10/conv3"
    arms = [plain(name, penalty={} if name == "none" else {name: {}}) for name in accuracies]
    levels = {name: {task: Level(accuracy)} for name, accuracy in accuracies.items()}
    return Study(root, arms, levels, changes=XH).finish()


def test_the_numbers_of_table_1_stand_beside_ours(tmp_path):
    study = xh_study(tmp_path, none=0.69, smooth=0.72, orthogonal=0.1)
    numbers = {item.regulariser: item for item in table_1(gather(study.plan, study.folder))}
    assert (numbers["smooth"].paper_mean, numbers["smooth"].paper_spread) == (72.50, 0.49)
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
    assert [worse[name].verdict for name in ("X2", "X3", "X5")] == [CONTRADICTED, MIXED, CONTRADICTED]


def test_where_most_diverged_the_survivors_are_not_above_chance(tmp_path):
    study = xh_study(tmp_path, none=0.69, orthogonal=0.5)
    for seed, run in enumerate(study.runs_of("orthogonal")[:4]):
        study.put(run, evaluation("cifar10/conv3", Level(diverged=True), seed, created=LATER))
    claim = decided(study)["X5"]
    assert (claim.verdict, "20 of 25 diverged" in claim.reason) == (SUPPORTED, True)


def test_that_no_mark_lies_beyond_the_horizon_is_the_reason(tmp_path):
    long = {"meta": {"inner_steps": 1000, "truncation": 5}}
    arms = [plain("none", **long), plain("smooth", **long, penalty={"smooth": {}})]
    levels = {name: {MLP: Level()} for name in ("none", "smooth")}
    claim = decided(Study(tmp_path, arms, levels, changes=XH).finish())["X2"]
    assert claim.verdict == NOT_TESTED
    assert claim.reason == "no mark lies beyond the inner steps of meta-training (1000)"


def test_without_a_paper_there_are_the_controls(tmp_path):
    study = two_arms(tmp_path, Level(), report={}).finish()
    assert set(decided(study)) == {"K1", "K2", "K3"}
