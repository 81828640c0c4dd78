"""Diagnoses in run folders, diagnosis-*.json: whether the estimated meta-gradient of every part of a meta-objective
points the right way.

Read as data from strangers, without torch; `engine.jobs.diagnosis_worker` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.files import read_json
from engine.base.status import is_number
from engine.runs.reader import RunReader

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
    reports = [
        report for name in sorted(names) if (report := from_json(_facts(reader, name), name.removesuffix(".json")))
    ]
    return sorted(reports, key=lambda report: report.created, reverse=True)


def _facts(reader: RunReader, name: str) -> dict[str, Any]:
    return read_json(reader.path / name, LARGEST_FILE, reader.path)


def from_json(facts: Mapping[str, Any], file: str = "") -> DiagnosisReport | None:
    """A report from a file of strangers; None where something that it needs is missing or another thing."""
    if facts.get("format") != FORMAT or not isinstance(facts.get("parts"), list):
        return None
    parts = [_part(part) for part in facts["parts"][:MOST_ROWS]]
    counts = [_whole(facts.get(key)) for key in ("truncation", "inner_steps", "optimizees", "diverged")]
    difference = _number(facts.get("difference"))
    truncation, inner_steps, optimizees, diverged = counts
    if None in (*parts, *counts) or difference is None or not parts:
        return None
    return DiagnosisReport(
        **{key: _text(facts.get(key)) for key in ("checkpoint", "source", "estimator", "created", "version")},
        is_unbiased=facts.get("is_unbiased") is True,
        truncation=truncation or 0,
        inner_steps=inner_steps or 0,
        optimizees=optimizees or 0,
        diverged=diverged or 0,
        difference=difference,
        parts=tuple(part for part in parts if part is not None),
        file=file,
    )


def _part(facts: Any) -> DiagnosedPart | None:
    if not isinstance(facts, Mapping) or facts.get("kind") not in KINDS:
        return None
    steps, true = facts.get("steps"), _slope(facts.get("true"))
    ends = [_whole(end) for end in steps] if isinstance(steps, list) else []
    value, weight = _number(facts.get("value")), _number(facts.get("weight"))
    if true is None or value is None or weight is None or len(ends) != 2 or None in ends:
        return None
    return DiagnosedPart(
        kind=facts["kind"],
        name=_text(facts.get("name")),
        weight=weight,
        steps=(ends[0] or 0, ends[1] or 0),
        is_window=facts.get("is_window") is True,
        task=_text(facts.get("task")),
        value=value,
        true=true,
        estimated=_slope(facts.get("estimated")),
        cosine=_number(facts.get("cosine")),
    )


def _slope(facts: Any) -> Slope | None:
    mean = _number(facts.get("mean")) if isinstance(facts, Mapping) else None
    return None if mean is None else Slope(mean, *(_number(facts.get(key)) for key in ("error", "low", "high")))


def _number(value: Any) -> float | None:
    return float(value) if value is not None and is_number(value) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _text(value: Any) -> str:
    return value[:LONGEST_NAME] if isinstance(value, str) else ""
