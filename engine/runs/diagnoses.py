"""Diagnoses in run folders, diagnosis-*.json: whether the estimated meta-gradient of every part of a meta-objective
points the right way.

Read as data from strangers, without torch; `engine.jobs.diagnosis_worker` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from engine.base.files import read_json
from engine.runs.evaluations import number, text, whole
from engine.runs.reader import RunReader

T = TypeVar("T")
FORMAT = 1
PREFIX = "diagnosis-"
KINDS = ("objective", "loss", "penalty", "term")
AGREES, OPPOSITE, UNCLEAR, NO_ESTIMATE = "agrees", "opposite", "unclear", "no estimate"
LARGEST_FILE = 2**22  # bytes
MOST_ROWS = 10_000
LONGEST_NAME = 200


@dataclass(frozen=True)
class Slope:
    """A derivative by the log of the update scale: mean over optimizees, its standard error and 95% interval.

    The last three are None where there was one optimizee only.
    """

    mean: float
    error: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def advice(self) -> str:
        """What gradient descent along it does."""
        return "step less" if self.mean > 0 else "step more"

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:+.2g}, {self.high:+.2g}]"
        return f"{self.mean:+.3g}{interval}"


@dataclass(frozen=True)
class DiagnosedPart:
    """One part of the meta-objective, in a window of the unroll, on a task ("": all together)."""

    kind: str  # of KINDS
    name: str
    weight: float  # in the meta-objective
    steps: tuple[int, int]  # inner steps, from and before
    is_window: bool  # a part of the unroll
    task: str
    value: float
    true: Slope
    estimated: Slope | None  # None where the estimator gives none
    cosine: float | None = None  # of both over the optimizees

    @property
    def verdict(self) -> str:
        """The sign test."""
        if self.estimated is None:
            return NO_ESTIMATE
        if not (self.estimated.is_clear and self.true.is_clear):
            return UNCLEAR
        return AGREES if (self.estimated.mean > 0) == (self.true.mean > 0) else OPPOSITE

    @property
    def ratio(self) -> float | None:
        """The estimated derivative over the true one, where that is not 0 for all one knows."""
        return self.estimated.mean / self.true.mean if self.estimated is not None and self.true.is_clear else None

    @property
    def label(self) -> str:
        name = {"objective": "whole objective", "loss": "loss", "term": f"term {self.name}"}.get(self.kind, self.name)
        window = f", inner steps {self.steps[0]}-{self.steps[1]}" if self.is_window else ""
        return name + window + (f" on {self.task}" if self.task else "")

    def words(self, estimator: str, is_unbiased: bool) -> str:
        """The sign test in words."""
        true, estimated = self.true, self.estimated
        if estimated is None:
            reason = f"{estimator} estimates it without bias" if is_unbiased else f"{estimator} has no derivative of it"
            truth = f"the truth is {true.advice} ({true})" if true.is_clear else f"the truth is too noisy ({true})"
            return f"{self.label}: {truth}; {reason}"
        both = f"estimated {estimated}, true {true}"
        if self.verdict == UNCLEAR:
            return f"{self.label}: too noisy to tell ({both})"
        if self.verdict == AGREES:
            return f"{self.label}: both say {true.advice} ({both}): agrees"
        kind = {"objective": "objective", "loss": "loss"}.get(self.kind, "penalty")
        return (
            f"{self.label}: the estimated gradient says {estimated.advice} ({estimated}), "
            f"the truth is {true.advice} ({true}): this {kind} points the wrong way here"
        )

    def to_json(self) -> dict[str, Any]:
        facts = {key: value for key, value in vars(self).items() if key not in ("true", "estimated")}
        slopes = {"true": vars(self.true), "estimated": None if self.estimated is None else vars(self.estimated)}
        return {**facts, **slopes, "ratio": self.ratio, "verdict": self.verdict}


@dataclass(frozen=True)
class DiagnosisReport:
    """What a diagnosis came to."""

    checkpoint: str
    source: str  # whose objective: a preset's name; "": the run's own
    estimator: str
    is_unbiased: bool
    truncation: int
    inner_steps: int
    optimizees: int  # of every task
    difference: float  # of the log scale, to either side
    diverged: int  # optimizees, at one scale or the other
    created: str
    version: str
    parts: tuple[DiagnosedPart, ...]
    file: str = ""

    def sentences(self) -> list[str]:
        """The sign test of every part, in words."""
        return [part.words(self.estimator, self.is_unbiased) for part in self.parts]

    @property
    def about(self) -> str:
        """How it was measured, in words."""
        how = f", truncation {self.truncation}" if not self.is_unbiased else ""
        source = f", objective of {self.source}" if self.source else ""
        diverged = f", {self.diverged} diverged" if self.diverged else ""
        return (
            f"checkpoint {self.checkpoint}, {self.estimator}{how}, {self.inner_steps} inner steps{source}; true: "
            f"differences of the log scale by {self.difference:g}; {self.optimizees} optimizees of every task{diverged}"
        )

    def to_json(self) -> dict[str, Any]:
        facts = {key: value for key, value in vars(self).items() if key not in ("parts", "file")}
        rows = [
            {**part.to_json(), "sentence": sentence}
            for part, sentence in zip(self.parts, self.sentences(), strict=True)
        ]
        return {"format": FORMAT, **facts, "parts": rows}


def read_all(reader: RunReader) -> list[DiagnosisReport]:
    """The diagnoses in a run's folder, the newest first; what is no such file is left out."""
    try:
        names = [name for name in os.listdir(reader.path) if name.startswith(PREFIX) and name.endswith(".json")]
    except OSError:
        return []
    files = ((name, read_json(reader.path / name, LARGEST_FILE, reader.path)) for name in sorted(names))
    reports = [report for name, facts in files if (report := from_json(facts, name.removesuffix(".json")))]
    return sorted(reports, key=lambda report: report.created, reverse=True)


def from_json(facts: Mapping[str, Any], file: str = "") -> DiagnosisReport | None:
    """A report from a file of strangers; None where something that it needs is missing or another thing."""
    report = _read(DiagnosisReport, facts) if facts.get("format") == FORMAT else None
    return replace(report, file=file) if report is not None and report.parts else None


def _read(kind: type[T], facts: Any) -> T | None:
    """An object of a dataclass; None where a field that must be something is missing or of another type."""
    if not isinstance(facts, Mapping):
        return None
    types: dict[str, Any] = {item.name: item.type for item in fields(kind)}  # type: ignore[arg-type]
    values = {name: READERS[type_name](facts.get(name)) for name, type_name in types.items()}
    is_whole = all(value is not None or types[name].endswith("| None") for name, value in values.items())
    return kind(**values) if is_whole else None


def _parts(rows: Any) -> tuple[DiagnosedPart, ...] | None:
    parts = [_read(DiagnosedPart, row) for row in rows[:MOST_ROWS]] if isinstance(rows, list) else [None]
    whole = tuple(part for part in parts if part is not None and part.kind in KINDS)
    return whole if len(whole) == len(parts) else None


def _ends(steps: Any) -> tuple[int, ...] | None:
    ends = tuple(end for end in map(whole, steps) if end is not None) if isinstance(steps, list) else ()
    return ends if len(ends) == 2 == len(steps) else None


READERS: dict[str, Callable[[Any], Any]] = {
    "str": lambda value: text(value)[:LONGEST_NAME],
    "bool": lambda value: value is True,
    "int": whole,
    "float": number,
    "float | None": number,
    "tuple[int, int]": _ends,
    "Slope": lambda value: _read(Slope, value),
    "Slope | None": lambda value: _read(Slope, value),
    "tuple[DiagnosedPart, ...]": _parts,
}
"""What a field of each type is in a file of strangers; None: none such."""
