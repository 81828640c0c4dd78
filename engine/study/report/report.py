"""Report of a study: one folder with Markdown, CSV and figures, made from the folders of its runs and nothing else.

It can be written at any time: of a study that has not finished, it says what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, RunError
from engine.base.files import make_folder, remove_leftovers, write_atomic
from engine.base.metrics import metric
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, MATCHED_LOSS
from engine.figures import Block
from engine.study.plan.kept import report_file
from engine.study.plan.plan import StudyPlan
from engine.study.report import design, figures, results, summary, tables
from engine.study.report.claim import VERDICTS, Claim, Finding, findings, judged
from engine.study.report.evidence import HEADLINE, Evidence, gather
from engine.study.report.markdown import bullets, code, paragraph, text
from engine.study.report.papers import lr, xh

FILES = ("*.csv", "*.png")  # what a report before may have left
Draw = Callable[[Block, Path], None]
"""Draws one figure into a file; the engine itself has no plotting. May raise LregError."""
INTRODUCTION = (
    "Intervals are 95% t-intervals over the means of meta-seeds; differences are paired by meta-seed and optimizee "
    "(start and batches). With one meta-seed they are over optimizees; against a hand-designed optimizer, which "
    "has no meta-seeds, the wider of both. A comparison whose interval "
    'includes no difference is "not found": neither an effect nor its absence was shown. Every figure is also in the '
    "CSV files beside this one, with the runs that it comes from."
)
OURS = "ours"
NORMALISED_DESCENT = "ngdm"


def write_report(plan: StudyPlan, folder: Path, draw: Draw | None = None) -> Path:
    """Write the report of the study in a folder to where it belongs (`report_file`); returns the path of report.md.

    Each file is replaced whole, report.md last. Raises RunError where nothing can be written.
    """
    study, file = gather(plan, folder), report_file(folder)
    target = file.parent
    try:
        make_folder(target)
        remove_leftovers(target)
        groups = claims(study)
        files = dict(tables.tables(study, [claim for group in groups.values() for claim in group]))
        for name, content in files.items():
            write_atomic(target / name, content)
        drawn: dict[str, Block] = {}
        problems = []
        for name, block in figures.figures(study) if draw is not None else ():
            assert draw is not None
            try:
                draw(block, target / name)
                drawn[name] = block
            except LregError as error:
                problems.append(f"figure {code(name)} could not be drawn: {text(error)}")
        names = [*files, *drawn]
        write_atomic(file, "\n".join(_sections(study, groups, drawn, problems, names)))
        for path in (path for pattern in FILES for path in target.glob(pattern)):
            if path.name not in names:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{error.filename or target}: {error.strerror or error}; the report was not written") from None
    return file


def _sections(
    study: Evidence, groups: dict[str, list[Claim]], drawn: dict[str, Block], problems: list[str], names: list[str]
) -> Iterator[str]:
    yield f"# Study {text(study.plan.name)}\n"
    if study.plan.description:
        yield paragraph(text(study.plan.description))
    yield paragraph(design.progress(study))
    yield from summary.asked(study)
    yield from summary.found(study)
    yield from results.numbers(study)
    yield from results.pictures(drawn)
    yield "## How to read what follows\n"
    yield paragraph(INTRODUCTION)
    yield paragraph(results.ON_FRONTIERS)
    yield paragraph(VERDICTS)
    for title, group in groups.items():
        yield from results.claims(study, title, group)
    yield "## What weakens the conclusions\n"
    yield bullets([*design.weaknesses(study, [claim for group in groups.values() for claim in group]), *problems])
    yield from results.results(study)
    yield from design.picked(study)
    yield from design.what_was_run(study)
    yield "## Files\n"
    yield bullets(f"[{name}]({name})" for name in names)


def claims(study: Evidence) -> dict[str, list[Claim]]:
    """By what they are called, each with the arms of which something may still come."""
    paper = study.plan.report.get("paper", "")
    groups: dict[str, list[Claim]] = {}
    if paper == "lr":
        groups["Claims of Learning Regularizers (arXiv:2510.08968)"] = lr.claims(study)
    if paper == "xh":
        groups["Claims of Learning to Learn with Smooth Regularization (ECCV 2022)"] = xh.claims(study)
    groups["Controls"] = [scale(study), reweighting(study), untrained(study)]
    waiting = [arm for arm in study.planned if arm in study.waiting]
    return {
        title: [replace(claim, waiting=tuple(arm for arm in waiting if arm in claim.arms)) for claim in group]
        for title, group in groups.items()
    }


def scale(study: Evidence) -> Claim:
    """A penalty may do no more than change the size of the updates."""
    reference = study.plan.reference
    pressed = [arm for arm in study.planned if study.penalties(arm) and not study.is_neutral(arm)]
    alike = [arm for arm in pressed if study.kind(arm) == study.kind(reference)]  # else the kind makes the difference
    wants = (*alike, reference)
    return Claim(
        "K1",
        "penalties do more than a constant factor of the updates",
        OURS,
        f"{metric(study.sharpness).words} at the arm's own train loss, against the lowest point of the curve that the "
        "reference arm, of the same learned optimizer, traces when its updates are multiplied by constants: ratio's "
        "95% interval below 1",
        "the reference arm was evaluated at fewer than two scales besides 1, or no arm of its kind has a penalty",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(findings(study, [(arm, reference) for arm in alike], {"": (FRONTIER, study.sharpness)}))


def reweighting(study: Evidence) -> Claim:
    """A penalty also multiplies the meta-loss."""
    neutral = [arm for arm in study.planned if study.is_neutral(arm)]
    beside = {
        arm: other
        for arm in study.regularised
        if (other := next((item for item in neutral if _weights(study, item) == _weights(study, arm)), None))
    }
    wants = tuple(dict.fromkeys((*beside, *beside.values())))
    readings = {"sharpness": (MATCHED_LOSS, study.sharpness), "accuracy": (EQUAL_STEPS, HEADLINE)}
    return Claim(
        "K2",
        "penalties do more than re-weight the meta-loss",
        OURS,
        f"{metric(study.sharpness).words} at matched train loss (ratio's 95% interval below 1) and test accuracy at "
        "equal steps (difference's above 0), against an arm whose penalty has as much weight but a ball of radius 0, "
        "which is the loss once more",
        "no arm whose penalty has rho = 0 and the weight of the others, or none beside it",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(findings(study, beside.items(), readings))


def _weights(study: Evidence, arm: str) -> tuple[str, float, dict[str, Any]]:
    """How much an arm's penalties with a ball re-weight the loss, and what else it has."""
    penalties = study.penalties(arm)
    rest = {name: values for name, values in penalties.items() if "rho" not in values}
    weight = sum(float(values.get("weight", 1.0)) for values in penalties.values() if "rho" in values)
    return study.kind(arm), weight, rest


def untrained(study: Evidence) -> Claim:
    """An optimizer that cannot train is not worth regularising."""
    wants = (study.plan.reference,)
    return Claim(
        "K3",
        "meta-training is worth it at all",
        OURS,
        "train loss of the reference arm at equal steps, against its own fresh meta-parameters and against tuned "
        f"normalised gradient descent ({NORMALISED_DESCENT}; the wider interval of that over meta-seeds and that over "
        "optimizees): paired difference's 95% interval below 0",
        f"neither the untrained learned optimizer nor {NORMALISED_DESCENT} was evaluated",
        wants,
        study.lacking(wants, study.tasks),
    ).decided(_against_fresh(study))


def _against_fresh(study: Evidence) -> Iterator[Finding]:
    arm = study.plan.reference
    for task, outcomes in study.tasks.items():
        others = {"untrained": outcomes.untrained.get(arm)}
        others[NORMALISED_DESCENT] = outcomes.baselines.get(NORMALISED_DESCENT)
        for name, entry in others.items():
            if entry is not None:
                reading = study.metric_at(task, "train_loss")
                effect = study.effect_against(task, arm, name, entry, EQUAL_STEPS, reading)
                if effect is not None:
                    yield judged(study, effect, task, name)
