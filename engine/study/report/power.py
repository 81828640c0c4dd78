"""Power of a study's comparisons: the smallest effect that each would have found in 80% of all cases, in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from engine.base.metrics import Metric, metric
from engine.comparison import Interval
from engine.comparison.paired import RATIO
from engine.comparison.statistics import FEWEST_META_SEEDS
from engine.study.report import markdown
from engine.study.report.claim import TESTED, Finding
from engine.study.report.evidence import Evidence

EXPLAINED = (
    "*Power from* says how small an effect this design finds: one of that size or larger comes out clear of none in "
    "80% of such studies (t-test at 5%, not corrected; as many meta-seeds, with the spread that was measured)"
)


def smallest(measured: Metric, kind: str, interval: Interval) -> str:
    """The smallest effect that is found with 80% power, as it is shown; "" where too few meta-seeds tell."""
    value = interval.detectable
    if value is None or interval.meta_seeds < FEWEST_META_SEEDS:
        return ""
    return _shown(measured, kind, value)


def power_from(measured: Metric, kind: str, interval: Interval) -> str:
    """The same as a remark behind what was not found."""
    value = smallest(measured, kind, interval)
    return f", power from {value}" if value else ""


def of_findings(study: Evidence, findings: Iterable[Finding]) -> str:
    """The power of a claim's comparisons, reading by reading: the range of the smallest effects, and their median."""
    readings: dict[tuple[Metric, str], list[float]] = {}
    for item in findings:
        value = item.interval.detectable if item.interval is not None and item.word in TESTED else None
        if value is not None and item.at is not None:
            measured = study.metric(item.task, item.at.name) if item.task else metric(item.at.name)
            readings.setdefault((measured, item.kind), []).append(value)
    return "; ".join(
        f"{measured.words} {_range(measured, kind, values)}" for (measured, kind), values in readings.items()
    )


def _range(measured: Metric, kind: str, values: list[float]) -> str:
    ends = [_shown(measured, kind, value) for value in (min(values), statistics.median(values), max(values))]
    return ends[0] if len(values) == 1 else f"{ends[1]} ({ends[0]} to {ends[2]})"


def _shown(measured: Metric, kind: str, value: float) -> str:
    if kind == RATIO:
        return f"x{markdown.number(1 / value)}"
    return f"±{100 * value:.2f} points" if measured.unit == "share" else f"±{markdown.number(value)}"
