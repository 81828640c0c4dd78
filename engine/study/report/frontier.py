"""What the report says of arms against the reference arm's frontier, where a study transfers under scales."""

from __future__ import annotations

from collections.abc import Iterator

from engine.comparison import Effect, controls
from engine.comparison.paired import BRANCHES, ENVELOPE, GRID, READINGS, REGULAR, best_scales
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.study.report.evidence import Evidence
from engine.study.report.markdown import NOTHING, bullets, code, count, interval, paragraph, table, text
from engine.study.report.power import power_from

WORDS = {REGULAR: "regular branch", ENVELOPE: "and overshoot (envelope)", GRID: "scale x weight decay"}
NOT_SIGNIFICANT = "n.s."


def against_frontier(study: Evidence, task: str, step: int) -> Iterator[str]:
    """A line for each arm and reading, a cell for each branch, and which arms are controls of others."""
    reference = study.plan.reference
    readings = dict.fromkeys(study.metric_at(task, name) for name in READINGS)
    rows = []
    for arm, reading in ((arm, reading) for arm in study.arms for reading in readings):
        effects = [study.effect(task, arm, reference, branch, reading, step) for branch in BRANCHES]
        if any(effects):
            at = f" at {reading.radius}" if reading.radius else ""
            name = f"{study.metric(task, reading.name).words}{at}"
            rows.append([code(arm), name, *(_cell(study, effect) for effect in effects)])
    if not rows:
        return
    scales = best_scales(study.tasks[task], step, study.arms[reference]).values()
    best = ", ".join(f"x{scale:g}" for scale in dict.fromkeys(scales))
    yield paragraph(
        f"Against the frontier of {code(reference)}, which it traces when its updates are multiplied by constants: "
        "ratios at the arm's train loss, geometric means. Its best scale, that of the lowest train loss, is "
        f"{best or NOTHING}: up to it the branch is regular, beyond it the updates overshoot. Scale x weight decay: "
        f"the lowest of all points of that grid whose train loss is no higher. {NOT_SIGNIFICANT}: the interval "
        "includes 1, which shows neither a difference nor that there is none."
    )
    yield table(["arm", "reading", *WORDS.values()], rows, left=5)
    if named := controls(list(study.arms.values())):
        yield bullets(text(control.words) for control in named.values())


def _cell(study: Evidence, effect: Effect | None) -> str:
    if effect is None:
        return NOTHING
    ratio = effect.interval
    if effect.is_beyond:
        return f"beyond the frontier ({effect.outside} of {count(effect.outside + ratio.n, 'pair')})"
    if ratio.mean is None:
        return effect.verdict
    word = NOT_SIGNIFICANT if effect.verdict == "unclear" else effect.verdict
    word = word if ratio.meta_seeds >= FEWEST_META_SEEDS or ratio.low is None else ""
    if word == NOT_SIGNIFICANT:
        word += power_from(study.metric(effect.task, effect.at.name), effect.kind, ratio)
    pairs = f", {count(ratio.n, 'pair')}" if effect.outside + effect.left_out else ""
    return " ".join(filter(None, [interval(ratio.mean, ratio.low, ratio.high), word])) + pairs
