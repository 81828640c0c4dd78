"""What the report says of results: figures, claim by claim, and task by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.comparison import ComparisonRow, Effect, MetricAt
from engine.comparison.paired import (
    BRANCHES,
    ENVELOPE,
    EQUAL_STEPS,
    FRONTIER,
    GRID,
    MATCHED_LOSS,
    RATIO,
    READINGS,
    REGULAR,
    best_scales,
)
from engine.comparison.report import ARM, BASELINE, DECAYED
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.figures import Block
from engine.study.report import markdown
from engine.study.report.claim import NOT_FOUND, TOO_FEW_META_SEEDS, Claim, of_findings, smallest
from engine.study.report.evidence import HEADLINE, Evidence
from engine.study.report.markdown import NOTHING, bullets, code, codes, count, paragraph, table, text
from engine.study.report.papers import xh

LATER = ("train_loss", "sharpness", "top_eigenvalue")  # after what an arm is read by first
SETTINGS = {
    EQUAL_STEPS: "at equal steps",
    MATCHED_LOSS: "at matched train loss",
    FRONTIER: "against the scale frontier",
}
WORDS = {REGULAR: "regular branch", ENVELOPE: "and overshoot (envelope)", GRID: "scale x weight decay"}
NOT_SIGNIFICANT = "n.s."
ON_FRONTIERS = (
    "The frontier of the reference is what it traces when its updates are multiplied by constants. Ratios against it "
    "are at the arm's train loss, geometric means. Up to the best scale, that of the lowest train loss, its branch is "
    "regular; beyond it the updates overshoot. Scale x weight decay: the lowest of all points of that grid whose "
    f"train loss is no higher. {NOT_SIGNIFICANT}: the interval includes 1, which shows neither a difference nor that "
    "there is none."
)


def numbers(study: Evidence) -> Iterator[str]:
    """The paper's numbers beside ours."""
    items = xh.table_1(study)
    if not items:
        return
    yield "## The paper's numbers beside ours\n"
    yield paragraph(
        "Table 1 of the paper: test accuracy in percent on CIFAR-10, three-layer CNN, 10000 steps; mean and spread "
        "over five runs with different seeds. Ours: mean and standard deviation over the meta-seeds of the winner."
    )
    rows = []
    for item in items:
        spread = "" if item.standard_deviation is None else f" ± {item.standard_deviation:.2f}"
        ours = NOTHING if item.mean is None else f"{item.mean:.2f}{spread}"
        paper = f"{item.paper_mean:.2f} ± {item.paper_spread:.2f}"
        rows.append([text(item.regulariser), paper, ours, str(item.n), code(item.arm), text(item.remark)])
    yield table(["regulariser", "paper", "ours", "meta-seeds", "arm", "remark"], rows)


def claims(study: Evidence, title: str, group: Sequence[Claim]) -> Iterator[str]:
    """The claims' table, and below it each claim's rule and what it rests on."""
    yield f"## {title}\n"
    verdicts = {claim.name: f"**{claim.verdict}**" + (" so far" if claim.waiting else "") for claim in group}
    rows = [[claim.name, verdicts[claim.name], claim.text, claim.counts or NOTHING] for claim in group]
    yield table(["id", "verdict", "claim", "comparisons"], rows, left=4)
    for claim in group:
        yield f"### {claim.name}: {claim.text}\n"
        lines = [f"Source: {claim.source}.", f"Rule: {claim.rule}."]
        lines.append(f"Verdict: {verdicts[claim.name]} ({text(claim.reason)}).")
        if claim.waiting:
            open_arms = codes(claim.waiting)
            lines.append(f"The study has not finished: runs or transfers of {open_arms} are still open.")
        if power := of_findings(study, claim.findings):
            lines.append(f"Power from: {text(power)}.")
        yield bullets(lines)
        if claim.findings:
            yield _matrix(claim)


def _matrix(claim: Claim) -> str:
    rows, columns = (list(dict.fromkeys(getattr(item, name) for item in claim.findings)) for name in ("row", "column"))
    alike = {item.word for item in claim.findings} == {TOO_FEW_META_SEEDS}  # then the verdict says so once
    cells = {
        (item.row, item.column): " ".join(filter(None, [item.text, "" if alike else item.word]))
        for item in claim.findings
    }
    lines = [[text(row), *(text(cells.get((row, column)) or NOTHING) for column in columns)] for row in rows]
    return table(["", *map(text, columns)], lines)


def pictures(drawn: Mapping[str, Block]) -> Iterator[str]:
    """The figures over all tasks."""
    if drawn:
        yield "## Figures\n"
    for name, block in drawn.items():
        yield f"![{text(block.figure)}]({name})\n\n{paragraph(text(block.caption))}"


def results(study: Evidence) -> Iterator[str]:
    """The tables of each task."""
    if study.tasks:
        yield "## Results\n"
    for task, steps in study.steps.items():
        for step in reversed(steps):
            yield f"### {text(task)} after {step} inner steps\n"
            yield from _task(study, task, step, whole=step == steps[-1])


def _task(study: Evidence, task: str, step: int, whole: bool) -> Iterator[str]:
    """The tables of a task; before its last inner step only what the arms reached."""
    reference = study.plan.reference
    trained = [row for row in study.table(task, step).rows if row.kind != DECAYED and (whole or row.kind == ARM)]
    metrics = dict.fromkeys(study.metric(task, name) for name in ("test_loss", HEADLINE, "train_loss"))
    headings = [f"{metric.words}, %" if metric.unit == "share" else metric.words for metric in metrics]
    lines = []
    for row in trained:
        values = [_shown(study, task, row, MetricAt(metric.name)) for metric in metrics]
        optimizees = f"{row.seeds} of {count(row.meta_seeds, 'meta-seed')}" if row.arm else str(row.seeds)
        lines.append([text(row.label), *values, optimizees, str(row.diverged)])
    yield table(["optimizer", *headings, "optimizees", "diverged"], lines)
    if study.radii:
        adaptive = study.metric_at(task, "adaptive_sharpness")
        readings = {f"adaptive sharpness at {adaptive.radius}": adaptive} if adaptive.radius else {}
        readings |= {f"sharpness at {radius}": MetricAt("sharpness", radius) for radius in study.radii}
        readings |= {"parameter norm": MetricAt("parameter_norm"), "top eigenvalue": MetricAt("top_eigenvalue")}
        measured = [row for row in trained if study.metric_at(task, "sharpness") in row.metrics]
        lines = [
            [text(row.label), *(_shown(study, task, row, reading) for reading in readings.values())] for row in measured
        ]
        yield table(["optimizer", *readings], lines)
    if tuned := list(filter(None, map(_tuned, trained))):
        yield paragraph(f"Tuned on validation loss: {'; '.join(tuned)}.")
    rows = [row for arm in study.arms for row in _effect_rows(study, task, step, arm)]
    if rows:
        pairs = max(effect.interval.n for arm in study.arms for effect in study.effects(task, arm, reference, step))
        headline = study.metric(task)
        remark = f" ({headline.words} in points)" if headline.unit == "share" else ""
        yield paragraph(
            f"Against {code(reference)}, paired by optimizee, up to {count(pairs, 'pair')}; differences are "
            f"arm minus reference{remark}, ratios arm / reference:"
        )
        yield table(["arm", "figure", *SETTINGS.values()], rows, left=5)
    yield from against_frontier(study, task, step)


def _shown(study: Evidence, task: str, row: ComparisonRow, reading: MetricAt) -> str:
    value = row.metrics.get(reading)
    if value is None or value.mean is None:
        return NOTHING
    is_share = study.metric(task, reading.name).unit == "share"
    return (markdown.percent if is_share else markdown.interval)(value.mean, value.low, value.high)


def _tuned(row: ComparisonRow) -> str:
    facts = row.facts
    if row.kind != BASELINE or facts.learning_rate is None:
        return ""
    values = {"learning rate": facts.learning_rate, "rho": facts.rho, "alpha": facts.alpha}
    chosen = ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
    elsewhere = facts.tuned_at is not None and facts.tuned_at != row.inner_step
    return f"{code(row.label)} {chosen}" + (f" (for {facts.tuned_at} steps)" if elsewhere else "")


def _effect_rows(study: Evidence, task: str, step: int, arm: str) -> Iterator[list[str]]:
    """A line for each metric, a cell for each setting."""
    for name in dict.fromkeys(("test_loss", "adaptive_sharpness", study.metric(task).name, *LATER)):
        reading, metric = study.metric_at(task, name), study.metric(task, name)
        effects = [study.effect(task, arm, study.plan.reference, setting, reading, step) for setting in SETTINGS]
        kinds = [effect.kind for effect in effects if effect is not None]
        if kinds:
            kind = "points" if metric.unit == "share" else kinds[0]
            cells = (_effect(study, effect, NOT_FOUND) for effect in effects)
            yield [code(arm), f"{study.words(task, reading)}, {kind}", *cells]


def _effect(study: Evidence, effect: Effect | None, unclear: str) -> str:
    """The interval, the verdict, which is in the word for `unclear` where the interval includes no difference, and how
    many pairs there are where they are not all; and whether it lies beyond the frontier.
    """
    if effect is None:
        return NOTHING
    interval = effect.interval
    if effect.setting in BRANCHES and effect.is_beyond:
        return f"beyond the frontier ({effect.outside} of {count(effect.outside + interval.n, 'pair')})"
    word = unclear if effect.verdict == "unclear" else effect.verdict
    word = word if interval.meta_seeds >= FEWEST_META_SEEDS or interval.low is None else ""
    if interval.mean is None:
        return word
    metric = study.metric(effect.task, effect.at.name)
    written = markdown.percent if metric.unit == "share" else markdown.interval
    difference = written(interval.mean, interval.low, interval.high, sign=effect.kind != RATIO)
    power = smallest(metric, effect.kind, interval) if word == unclear else ""
    pairs = f", {count(interval.n, 'pair')}" if effect.outside + effect.left_out else ""
    return " ".join(filter(None, [difference, word])) + (f", power from {power}" if power else "") + pairs


def against_frontier(study: Evidence, task: str, step: int) -> Iterator[str]:
    """A line for each arm and reading, a cell for each branch."""
    reference = study.plan.reference
    readings = dict.fromkeys(study.metric_at(task, name) for name in READINGS)
    rows = []
    for arm, reading in ((arm, reading) for arm in study.arms for reading in readings):
        effects = [study.effect(task, arm, reference, branch, reading, step) for branch in BRANCHES]
        if any(effects):
            cells = (_effect(study, effect, NOT_SIGNIFICANT) for effect in effects)
            rows.append([code(arm), study.words(task, reading), *cells])
    if not rows:
        return
    best = best_scales(study.tasks[task], step, study.arms[reference]).values()
    scales = ", ".join(f"x{scale:g}" for scale in dict.fromkeys(best)) or NOTHING
    yield paragraph(f"Against the frontier of {code(reference)}, whose best scale is {scales}:")
    yield table(["arm", "reading", *WORDS.values()], rows, left=5)
