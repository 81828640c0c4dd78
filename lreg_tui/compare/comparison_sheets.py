"""A comparison of runs as sheets, for the command line and the console, and as files of just the same text."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.errors import LregError, printable
from engine.base.files import strict, write_atomic
from engine.base.metrics import metric, result_metrics
from engine.base.settings import show
from lreg_tui.text import present
from lreg_tui.text import sheets as render
from lreg_tui.text.sheets import BETTER, WORSE, Entry, Sheet

if TYPE_CHECKING:
    from engine.base.metrics import Metric
    from engine.comparison import Comparison, ComparisonRow, ComparisonTable, ControlArm, Effect, MetricAt

FORMS = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}
PICTURES = (".png", ".svg", ".pdf")
ENDINGS = (*FORMS, *PICTURES)
SETTINGS = {
    "equal steps": "at equal\nsteps",
    "matched loss": "at matched\ntrain loss",
    "frontier": "against the\nscale frontier",
}
BRANCHES = {
    "regular frontier": "regular branch",
    "envelope": "and overshoot\n(envelope)",
    "scale x weight decay": "scale × weight\ndecay",
}
NOT_SIGNIFICANT = "n.s."
SHORT = {"too few pairs": "too few", "unclear": NOT_SIGNIFICANT}
BY_RADIUS = ("sharpness", "max_grad_norm")
LONGEST_HEADING = 10  # characters on one line


def sheets_of(comparison: Comparison) -> Iterator[Sheet]:
    """What differs in the presets, how the runs ended, and for every task its table and the paired differences."""
    yield settings_sheet(comparison)
    yield runs_sheet(comparison)
    if (rule := rule_sheet(comparison)).rows:
        yield rule
    for table in comparison.tables:
        yield table_sheet(table, comparison.radius, list(comparison.controls.values()))
        yield from effect_sheets(comparison, table)


def effect_sheets(comparison: Comparison, table: ComparisonTable) -> Iterator[Sheet]:
    """For one task each arm against the reference arm, all of them against its frontier, and by radius."""
    everything = [effect for effect in comparison.effects if effect.task == table.task]
    effects = [effect for effect in everything if effect.setting not in BRANCHES]
    radii = (None, comparison.radius)
    for arm in dict.fromkeys(effect.arm for effect in effects):
        of_arm = [effect for effect in effects if effect.arm == arm]
        yield effect_sheet([effect for effect in of_arm if _is_shown(effect, radii)])
    if branches := [effect for effect in everything if effect.setting in BRANCHES and _is_shown(effect, radii)]:
        yield frontier_sheet(branches, comparison)
    if any(effect.metric.name in BY_RADIUS for effect in effects):
        yield radius_sheet(effects)


def _is_shown(effect: Effect, at_radii: Sequence[str | None]) -> bool:
    return effect.radius in at_radii or effect.metric.name == "adaptive_sharpness"


def settings_sheet(comparison: Comparison) -> Sheet:
    """A line for each setting that differs, a column for each arm."""
    settings, labels = comparison.settings, [arm.label for arm in comparison.arms]
    rows = [
        (key, [Entry(present.NOTHING if value is None else show(value)) for value in values])
        for key, values in settings.differing.items()
    ]
    remarks = [f"{arm.label}: {run.problem}" for arm in comparison.arms for run in arm.runs if run.problem]
    remarks += [control.words for control in comparison.controls.values()]
    if len(labels) == 1:
        return Sheet("settings: choices, and what is not the default", "setting", labels, rows, remarks)
    equal = f"{settings.equal} settings are equal"
    if settings.default:
        equal += f"; {settings.default} exist in some arms only, at their default"
    return Sheet("settings that differ", "setting", labels, rows, [equal, *remarks])


def runs_sheet(comparison: Comparison) -> Sheet:
    shares = list(dict.fromkeys(name for run in comparison.runs for name in run.penalty_shares))
    has_scale = any(run.best_scale is not None for run in comparison.runs)
    columns = ["state", "meta-steps", "validation\nloss", "lowest", "diverged"]
    columns += [f"{name}\nshare" for name in shares] + ["best\nscale"] * has_scale + ["run"]
    rows = []
    for run in comparison.runs:
        numbers = [present.number(run.validation_loss), present.number(run.best_validation_loss)]
        numbers.append(present.metric("diverged", run.diverged))
        numbers += [present.number(run.penalty_shares.get(name), 3) for name in shares]
        numbers += [present.setting(run.best_scale)] * has_scale
        state = Entry(run.state, style=present.STATE_STYLES.get(run.state, ""))
        steps = Entry(f"{run.step}/{run.total}" if run.step != run.total else str(run.step))
        rows.append((f"{run.arm} (seed {run.meta_seed})", [state, steps, *map(Entry, numbers), Entry(run.run)]))
    reference = f"the reference arm is {comparison.reference.label}" if len(comparison.arms) > 1 else ""
    return Sheet("meta-training", "arm", columns, rows, [reference] if reference else [])


def rule_sheet(comparison: Comparison) -> Sheet:
    """The learned optimizers' updates around the zero state (Xiong & Hsieh, fig. 7, as numbers)."""
    rows = {
        row.label: [Entry(present.number(value, 3)) for value in row.update_rule.values()]
        for table in comparison.tables
        for row in table.rows
        if row.update_rule and row.kind not in ("scaled", "decayed", "sam")
    }
    columns = ["standard\ndeviation", "largest", "Lipschitz\nratio"]
    remark = "updates at 1000 inputs from N(0, 0.1) around the zero state; a smooth rule has a small Lipschitz ratio"
    return Sheet("update rule around the zero state", "arm", columns, list(rows.items()), [remark])


def table_sheet(table: ComparisonTable, radius: str | None, controls: Sequence[ControlArm] = ()) -> Sheet:
    """The figures of every optimizer on a task; the best of a column is marked. A grid's points are too many."""
    columns = _columns(table, radius)
    best = [table.best(at) for at, _ in columns.values()]
    rows = []
    visible = [(index, row) for index, row in enumerate(table.rows) if row.kind != "decayed"]
    for index, row in visible:
        cells = [
            Entry(_mean(row, at, metric), best=index in leading)
            for (at, metric), leading in zip(columns.values(), best, strict=True)
        ]
        each, rest = divmod(row.seeds, max(1, row.meta_seeds))
        seeds = f"{each} x {row.meta_seeds}" if row.meta_seeds > 1 and not rest else str(row.seeds)
        counts = [Entry(str(row.diverged), style="red" if row.diverged else ""), Entry(seeds), Entry(str(row.passes))]
        rows.append((row.label, [*cells, *counts]))
    title = f"{table.task} after {table.inner_step} inner steps"
    headings = [*columns, "diverged", "seeds x\nmeta-seeds", "passes"]
    remarks = _remarks(table)
    if hidden := len(table.rows) - len(visible):
        points = f"{hidden} point{'s' if hidden > 1 else ''}"
        remarks.append(f"{points} of the grid of scale and weight decay: in the JSON and the CSV")
    arms = {row.arm for row in table.rows if row.kind == "arm"}
    remarks += [control.words for control in controls if {control.label, control.of} <= arms]
    return Sheet(title, "optimizer", headings, rows, remarks)


def _columns(table: ComparisonTable, radius: str | None) -> dict[str, tuple[MetricAt, Metric]]:
    from engine.comparison import NORMALISED, MetricAt

    headings: dict[str, tuple[MetricAt, Metric]] = {}
    for one in result_metrics(table.metrics, table.metrics):
        if one.name == "adaptive_sharpness":
            at = table.adaptive_radius
            headings[f"adaptive\nsharpness at {at}"] = MetricAt(one.name, at), one
        elif one.name == "sharpness" and radius is not None and table.adaptive_radius:
            headings[f"sharpness\nat {radius}"] = MetricAt(one.name, radius), one
        elif one.name != "sharpness":
            headings[_heading(one)] = MetricAt(one.name), table.metrics.get(one.name, one)
    for name in ("top_eigenvalue", "parameter_norm"):
        headings.setdefault(_heading(metric(name)), (MetricAt(name), metric(name)))
    if radius is not None:
        names = {
            f"sharpness\nat {radius}": "sharpness",
            f"max gradient\nnorm at {radius}": "max_grad_norm",
            f"normalised\nsharpness at {radius}": NORMALISED,
        }
        for heading, name in names.items():
            headings.setdefault(heading, (MetricAt(name, radius), metric(name)))
    return headings


def _heading(metric: Metric) -> str:
    """A metric at the head of a column, on two lines where it is long."""
    words = present.label(metric)
    return words if len(words) <= LONGEST_HEADING else words.replace(" ", "\n", 1)


def _mean(row: ComparisonRow, at: MetricAt, metric: Metric) -> str:
    cell = row.metrics.get(at)
    if cell is None:
        return present.NOTHING
    return present.interval({"mean": cell.mean, "ci95": cell.ci95}, metric.unit == "share")


def _remarks(table: ComparisonTable) -> list[str]:
    over = {cell.over for row in table.rows for cell in row.metrics.values() if cell.ci95 is not None}
    where = (
        next(iter(over)) if len(over) == 1 else "the means of the meta-seeds where there are several, else over seeds"
    )
    remarks = [f"mean ± 95% confidence interval over {where}, without diverged ones" if over else "means"]
    tuned = dict.fromkeys(_tuned(row) for row in table.rows if row.facts.learning_rate is not None)
    remarks.append("normalised sharpness: 2 sharpness / radius^2")
    return [*remarks, f"tuned on validation loss: {'; '.join(tuned)}"] if tuned else remarks


def _tuned(row: ComparisonRow) -> str:
    facts = row.facts
    values = {"learning rate": facts.learning_rate, "rho": facts.rho, "alpha": facts.alpha}
    chosen = ", ".join(f"{name} {present.setting(value)}" for name, value in values.items() if value is not None)
    return f"{facts.optimizer} {chosen}"


def _pivot(
    title: str, heading: str, cells: Iterable[tuple[str, str, Entry]], order: Iterable[str], remarks: Sequence[str] = ()
) -> Sheet:
    """A sheet of cells (row, column, entry); columns in this order, a dash where there is no entry."""
    rows: dict[str, dict[str, Entry]] = {}
    for row, column, entry in cells:
        rows.setdefault(row, {})[column] = entry
    columns = [column for column in order if any(column in entries for entries in rows.values())]
    nothing = Entry(present.NOTHING)
    lines = [(row, [entries.get(column, nothing) for column in columns]) for row, entries in rows.items()]
    return Sheet(title, heading, columns, lines, remarks)


def effect_sheet(effects: Sequence[Effect]) -> Sheet:
    """One arm against the reference on one task: a line for each figure, a column for each setting."""
    first, labels = effects[0], {effect.at: _reading(effect) for effect in effects}
    cells = [(labels[effect.at], SETTINGS[effect.setting], _effect(effect)) for effect in effects]
    title = f"{first.arm} against {first.reference}, {first.task} after {first.inner_step} inner steps"
    return _pivot(title, "figure", cells, SETTINGS.values(), _pairs(effects))


def _reading(effect: Effect) -> str:
    quantity = "difference (points)" if effect.metric.unit == "share" else "difference"
    at = f" at {effect.radius}" if effect.radius else ""
    return f"{present.label(effect.metric)}{at} {'ratio' if effect.kind == 'ratio' else quantity}"


def _effect(effect: Effect) -> Entry:
    interval, counts = effect.interval, _counts(effect)
    middle, low, high = (_value(effect, value) for value in (interval.mean, interval.low, interval.high))
    if interval.mean is None:
        return Entry(f"{effect.verdict}{counts}", style="dim")
    if interval.low is None:
        return Entry(f"{middle} {effect.verdict}{counts}", style="dim")
    return Entry(f"{middle} {_word(effect)}\n({low} to {high}){counts}", style=_style(effect))


def _word(effect: Effect) -> str:
    return SHORT.get(effect.verdict, effect.verdict)


def _counts(effect: Effect) -> str:
    """How many pairs there are, where some are left out."""
    return f"\nn = {effect.interval.n}" if effect.outside or effect.left_out else ""


def _style(effect: Effect) -> str:
    if effect.verdict not in ("lower", "higher"):
        return "" if effect.verdict == "unclear" else "dim"
    return BETTER if effect.verdict == effect.metric.better else WORSE


def _value(effect: Effect, value: float | None) -> str:
    if value is None:
        return present.NOTHING
    if effect.kind == "ratio":
        return present.number(value, 3)
    if effect.metric.unit == "share":
        points = f"{100 * value:+.2f}"
        return "0.00" if points == "-0.00" else points
    return ("+" if value > 0 else "") + present.number(value, 3)


def _pairs(effects: Sequence[Effect]) -> list[str]:
    """What was paired, what the intervals are over, and how many pairs a setting has lost."""
    intervals = [effect.interval for effect in effects if effect.setting == effects[0].setting]
    pairs, meta_seeds = max(interval.n for interval in intervals), max(interval.meta_seeds for interval in intervals)
    runs = "optimizee seeds of one meta-seed: of these very runs, and no others"
    over = f"the means of {meta_seeds} meta-seeds" if meta_seeds > 1 else runs
    remarks = [f"{pairs} pairs, 95% t-interval over {over}"]
    if any(effect.verdict == "unclear" for effect in effects):
        remarks.append(f"{NOT_SIGNIFICANT}: the interval includes 0, or 1 of a ratio; it does not show equality")
    for setting, words in {**SETTINGS, **BRANCHES}.items():
        lost = max((effect.outside for effect in effects if effect.setting == setting), default=0)
        if lost:
            of_both = setting in ("equal steps", "matched loss")
            reason = "one of both does not reach" if of_both else "the frontier does not reach"
            remarks.append(f"{words}: up to {lost} pairs left out, whose train loss {reason}")
    return remarks


def frontier_sheet(effects: Sequence[Effect], comparison: Comparison) -> Sheet:
    """Every arm on a task against what the reference arm reaches at its train loss, by scale and by weight decay."""
    first = effects[0]
    cells = [
        (f"{effect.arm}: {present.label(effect.at.name, effect.at.radius)}", BRANCHES[effect.setting], _branch(effect))
        for effect in effects
    ]
    title = f"against the frontier of {first.reference}, {first.task} after {first.inner_step} inner steps"
    remarks = ["ratios at the arm's train loss, geometric means", *_pairs(effects)]
    if scales := comparison.best_scales.get(first.task):
        best = ", ".join(f"×{scale:g}" for scale in dict.fromkeys(scales))
        remarks.append(f"best scale of {first.reference}: {best}; beyond it its updates overshoot")
    if any(effect.setting == "scale x weight decay" for effect in effects):
        remarks.append("scale × weight decay: against the lowest of all its points whose train loss is no higher")
    remarks += [control.words for control in comparison.controls.values()]
    return _pivot(title, "arm and reading", cells, BRANCHES.values(), remarks)


def _branch(effect: Effect) -> Entry:
    interval = effect.interval
    if effect.is_beyond:
        return Entry(f"beyond the frontier\n{effect.outside} of {effect.outside + interval.n} pairs", style="dim")
    if interval.mean is None or interval.low is None or interval.high is None:
        return _effect(effect)
    middle, low, high = (present.number(value, 3) for value in (interval.mean, interval.low, interval.high))
    return Entry(f"{middle} [{low}, {high}]\n{_word(effect)}{_counts(effect)}", style=_style(effect))


def radius_sheet(effects: Sequence[Effect]) -> Sheet:
    """Which is better at which radius: one line for each arm and radius."""
    first = effects[0]
    cells = [
        (f"{effect.arm} at {effect.radius}", _over(effect.metric.name, effect.setting), _ratio(effect))
        for effect in effects
        if effect.metric.name in BY_RADIUS
    ]
    title = f"ratio to {first.reference} by radius, {first.task} after {first.inner_step} inner steps"
    return _pivot(title, "arm and radius", cells, [_over(name, setting) for name in BY_RADIUS for setting in SETTINGS])


def _over(name: str, setting: str) -> str:
    return f"{present.label(name)}\n{SETTINGS[setting]}"


def _ratio(effect: Effect) -> Entry:
    value = "" if effect.interval.mean is None else f"{present.number(effect.interval.mean, 3)} "
    return Entry(f"{value}{_word(effect)}", style=_style(effect))


# -- as files ----------------------------------------------------------------------------------------------------------


def text(compared: Comparison, form: str) -> str:
    """`form`: markdown, csv, latex or json."""
    from engine.comparison import forms
    from engine.export.tables import cell

    if form == "json":
        return json.dumps(strict(forms.as_json(compared)), allow_nan=False) + "\n"
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(forms.TIDY_COLUMNS)
        writer.writerows([cell(value) for value in row] for row in forms.tidy(compared))
        return file.getvalue()
    is_markdown = form == "markdown"
    parts = [render.markdown(sheet) if is_markdown else render.latex(sheet) for sheet in sheets_of(compared)]
    escape = render.markdown_text if is_markdown else render.latex_text
    return "\n".join([*parts, *(f"Note: {escape(note)}.\n" for note in compared.notes)])


def save(compared: Comparison, path: Path) -> None:
    """Write the form that the file's name ends in. Raises LregError where it cannot be written."""
    try:
        write_atomic(path, text(compared, FORMS[path.suffix.lower()]))
    except OSError as error:
        raise LregError(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from None


def wrong_name(name: str) -> str:
    """What is wrong with the name of a file to save to; empty if nothing is."""
    path = target(name)
    if path.suffix.lower() not in ENDINGS:
        return f"found {path.name!r}; allowed: a name that ends in {', '.join(ENDINGS)}"
    if not str(path).isprintable():
        return f"found {str(path)!r}; allowed: a name without control characters"
    if os.path.isdir(path):  # which is never an error: names may be too long, or in folders that are closed to us
        return f"{path}: a folder"
    return "" if os.path.isdir(path.parent) else f"{path.parent}: no such folder"


def target(name: str) -> Path:
    return Path(os.path.expanduser(name.strip()))  # of a user who is not known, as it stands
