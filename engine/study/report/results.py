"""What the report says of results: in short, claim by claim, and task by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from engine.comparison import Effect, Figure
from engine.comparison.paired import EQUAL_STEPS, FRONTIER, MATCHED_LOSS, RATIO
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.figures import Block
from engine.figures.evaluated import estimate
from engine.study.report import markdown
from engine.study.report.claim import VERDICTS, WORDS, Claim
from engine.study.report.evidence import TEST_ACCURACY, TOP_EIGENVALUE, TRAIN_LOSS, Evidence
from engine.study.report.findings import NOT_FOUND, TOO_FEW_META_SEEDS, Finding, word_of
from engine.study.report.markdown import NOTHING, bullets, code, count, paragraph, table, text
from engine.study.report.papers import xh as claims_xh
from engine.study.report.trainers import Trainer, trainers

SETTINGS = {
    EQUAL_STEPS: "at equal steps",
    MATCHED_LOSS: "at matched train loss",
    FRONTIER: "against the scale frontier",
}
TEST_LOSS = Figure("test_loss")


def in_short(found: Evidence) -> Iterator[str]:
    """A line for each arm: in how many tasks it is better or worse than the reference."""
    reference = found.plan.reference
    yield "## In short\n"
    if not found.tasks:
        yield "There are no transfer evaluations of winners, so the arms cannot be compared yet.\n"
        return
    if reference not in found.arms:
        yield f"The reference arm {code(reference)} has no winner, so the others cannot be compared with it yet.\n"
        return
    if len(found.plan.seeds) < FEWEST_META_SEEDS:
        yield paragraph(
            f"{count(len(found.plan.seeds), 'meta-seed')}: too few to call any arm better or worse than the reference "
            f"{code(reference)}; that takes {FEWEST_META_SEEDS}. The differences stand under Results."
        )
        return
    sharpness = Figure("sharpness", found.radius)
    columns = {"test accuracy, equal steps": (EQUAL_STEPS, TEST_ACCURACY)}
    if found.radius:
        columns |= {f"sharpness at {found.radius}, {name}": (name, sharpness) for name in SETTINGS}
    rows = []
    for arm in found.arms:
        if arm != reference:
            cells = [_counted(found, arm, *how) for how in columns.values()]
            open_ = found.waiting & {arm, reference}
            rows.append([code(arm) + (" so far" if open_ else ""), *cells])
    where = f"{count(len(found.tasks), 'task')}: {', '.join(map(code, found.tasks))}"
    yield paragraph(
        f"Each arm's winner against the reference arm {code(reference)}, over {where}. Each comparison by itself, not "
        "corrected for their number."
    )
    yield table(["arm", *columns], rows, left=1 + len(columns))


def _counted(found: Evidence, arm: str, setting: str, figure: Figure) -> str:
    effects = [found.effect(task, arm, found.plan.reference, setting, figure) for task in found.tasks]
    words = Counter(word_of(effect) for effect in effects if effect is not None)
    return ", ".join(f"{word} {words[word]}" for word in WORDS if words[word]) or NOTHING


def numbers(found: Evidence) -> Iterator[str]:
    """The paper's numbers beside ours."""
    items = claims_xh.table_1(found) if found.plan.report.get("paper") == "xh" else []
    if not items:
        return
    yield "## The paper's numbers beside ours\n"
    yield paragraph(
        "Table 1 of the paper: test accuracy in percent on CIFAR-10, three-layer CNN, 10000 steps; mean and spread "
        "over five runs with different seeds. Ours: mean and standard deviation over the meta-seeds of the winner."
    )
    rows = []
    for item in items:
        spread = "" if item.deviation is None else f" ± {item.deviation:.2f}"
        ours = NOTHING if item.mean is None else f"{item.mean:.2f}{spread}"
        paper = f"{item.paper[0]:.2f} ± {item.paper[1]:.2f}"
        rows.append([text(item.regulariser), paper, ours, str(item.n), code(item.arm), text(item.remark)])
    yield table(["regulariser", "paper", "ours", "meta-seeds", "arm", "remark"], rows)


def claims(title: str, own: Sequence[Claim]) -> Iterator[str]:
    """The claims' table, and below it each claim's rule and what it rests on."""
    yield f"## {title}\n"
    rows = [[claim.name, _verdict(claim), claim.text, claim.counts or NOTHING] for claim in own]
    yield table(["id", "verdict", "claim", "comparisons"], rows, left=4)
    for claim in own:
        yield f"### {claim.name}: {claim.text}\n"
        lines = [f"Source: {claim.source}.", f"Rule: {claim.rule}."]
        yield bullets([*lines, f"Verdict: {_verdict(claim)} ({text(claim.reason)}).", *_open(claim)])
        if claim.findings:
            yield _matrix(claim.findings)


def _verdict(claim: Claim) -> str:
    return f"**{claim.verdict}**" + (" so far" if claim.waiting else "")


def _open(claim: Claim) -> Iterator[str]:
    if claim.waiting:
        yield f"The study has not finished: runs or transfers of {', '.join(map(code, claim.waiting))} are still open."


def rules(groups: Mapping[str, Sequence[Claim]]) -> Iterator[str]:
    """How verdicts are made, once."""
    if any(groups.values()):
        yield paragraph(VERDICTS)


def _matrix(findings: Sequence[Finding]) -> str:
    rows = list(dict.fromkeys(item.row for item in findings))
    columns = list(dict.fromkeys(item.column for item in findings))
    alike = {item.word for item in findings} == {TOO_FEW_META_SEEDS}  # then the verdict says so once
    cells = {
        (item.row, item.column): " ".join(filter(None, [item.shown, "" if alike else item.word])) or NOTHING
        for item in findings
    }
    shown = [[text(row), *(text(cells.get((row, column), NOTHING)) for column in columns)] for row in rows]
    return table(["", *map(text, columns)], shown)


def results(found: Evidence, drawn: Mapping[str, Block]) -> Iterator[str]:
    """Figures over all tasks, then the tables of each task."""
    if not found.tasks and not drawn:
        return
    yield "## Results\n"
    for name, block in drawn.items():
        if block.figure != "candidates":
            yield f"![{text(block.figure)}]({name})\n\n{paragraph(text(block.caption))}"
    for task, steps in found.steps.items():
        for step in reversed(steps):
            yield f"### {text(task)} after {step} inner steps\n"
            yield from _task(found, task, step, whole=step == steps[-1])


def _task(found: Evidence, task: str, step: int, whole: bool) -> Iterator[str]:
    """The tables of a task; before its last inner step only what the arms reached."""
    shown = [trainer for trainer in trainers(found, task, step) if whole or trainer.kind == "arm"]
    headings = ["optimizer", "test accuracy, %", "train loss", "test loss", "optimizees", "diverged"]
    yield table(headings, [_plain_row(trainer) for trainer in shown])
    if found.radii:
        measured = [trainer for trainer in shown if _shown(trainer, Figure("sharpness", found.radius)) != NOTHING]
        figures = [Figure("sharpness", radius) for radius in found.radii] + [TOP_EIGENVALUE]
        rows = [[text(item.label), *(_shown(item, figure) for figure in figures)] for item in measured]
        yield table(["optimizer", *(f"sharpness at {radius}" for radius in found.radii), "top eigenvalue"], rows)
    if tuned := list(filter(None, map(_tuned, shown))):
        yield paragraph(f"Tuned on validation loss: {'; '.join(tuned)}.")
    rows = [row for arm in found.arms for row in _effect_rows(found, task, step, arm)]
    if rows:
        pairs = max(effect.interval.n for arm in found.arms for effect in found.effects(task, arm, _ref(found), step))
        yield paragraph(
            f"Against {code(_ref(found))}, paired by optimizee, up to {count(pairs, 'pair')}; differences are "
            "arm minus reference (accuracy in points), ratios arm / reference:"
        )
        yield table(["arm", "figure", *SETTINGS.values()], rows, left=5)


def _ref(found: Evidence) -> str:
    return found.plan.reference


def _plain_row(trainer: Trainer) -> list[str]:
    figures = (TEST_ACCURACY, TRAIN_LOSS, TEST_LOSS)
    optimizees = f"{len(trainer.every)} of {count(len(trainer.outcomes), 'meta-seed')}"
    seeds = optimizees if trainer.arm else str(len(trainer.every))
    return [text(trainer.label), *(_shown(trainer, figure) for figure in figures), seeds, str(trainer.diverged)]


def _shown(trainer: Trainer, figure: Figure) -> str:
    value = estimate(trainer.outcomes, figure)
    if value is None:
        return NOTHING
    return markdown.percent(*value) if figure == TEST_ACCURACY else markdown.interval(*value)


def _tuned(trainer: Trainer) -> str:
    facts = trainer.entry.facts_at(trainer.step)
    if trainer.kind != "baseline" or facts.learning_rate is None:
        return ""
    values = {"learning rate": facts.learning_rate, "rho": facts.rho, "alpha": facts.alpha}
    chosen = ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
    elsewhere = facts.tuned_at is not None and facts.tuned_at != trainer.step
    return f"{code(trainer.label)} {chosen}" + (f" (for {facts.tuned_at} steps)" if elsewhere else "")


def _effect_rows(found: Evidence, task: str, step: int, arm: str) -> Iterator[list[str]]:
    """A line for each figure, a cell for each setting."""
    figures = {TEST_ACCURACY: "test accuracy, points", TRAIN_LOSS: "train loss, difference"}
    if found.radius:
        figures |= {Figure("sharpness", found.radius): f"sharpness at {found.radius}, ratio"}
    figures |= {TOP_EIGENVALUE: "top eigenvalue, difference"}
    for figure, words in figures.items():
        effects = [found.effect(task, arm, _ref(found), setting, figure, step) for setting in SETTINGS]
        if any(effects):
            yield [code(arm), words, *map(_effect, effects)]


def _effect(effect: Effect | None) -> str:
    if effect is None:
        return NOTHING
    interval = effect.interval
    word = NOT_FOUND if effect.verdict == "unclear" else effect.verdict
    word = word if interval.meta_seeds >= FEWEST_META_SEEDS or interval.low is None else ""
    if interval.mean is None:
        return word
    lost = effect.outside + effect.left_out
    pairs = f", {count(interval.n, 'pair')}" if lost else ""
    ends = (interval.mean, interval.low, interval.high)
    if effect.figure == TEST_ACCURACY:
        shown = markdown.percent(*ends, sign=True)
    else:
        shown = markdown.interval(*ends, sign=effect.kind != RATIO)
    return " ".join(filter(None, [shown, word])) + pairs
