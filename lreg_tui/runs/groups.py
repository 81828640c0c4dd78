"""Groups of runs as lines of the run table: repeats with other seeds, runs of a study, or of one value of a setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

from engine.base.metrics import metric
from engine.base.status import STOPPING
from engine.presets.repeats import TELLING, common_name
from engine.runs.kinds import STUDY as STUDY_KIND
from engine.runs.results import Mean, mean
from lreg_tui.runs.feed import RunRow

SEED, STUDY = "seed", "study"
STATE_ORDER = ("running", STOPPING, "queued", "paused", "crashed", "failed", "stopped", "finished")
COMMON = ("task", "optimizer", "estimator", "penalties", "device", "arm")
STUDY_TAG = "study:"


def state_place(state: str) -> int:
    return STATE_ORDER.index(state) if state in STATE_ORDER else len(STATE_ORDER)


class Means(Mapping[str, "float | None"]):
    """The means of some runs' figures by metric, with their intervals: computed when they are asked for."""

    def __init__(self, rows: Sequence[Mapping[str, float | None]]) -> None:
        self._figures = rows
        self._means: dict[str, Mean] = {}

    def of(self, name: str) -> Mean:
        if name not in self._means:
            self._means[name] = mean(figures.get(name) for figures in self._figures)
        return self._means[name]

    def __getitem__(self, name: str) -> float | None:
        if name not in self:
            raise KeyError(name)
        return self.of(name).mean

    def __contains__(self, name: object) -> bool:
        return any(name in figures for figures in self._figures)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for figures in self._figures for name in figures))

    def __len__(self) -> int:
        return len(list(iter(self)))


class Best(Means):
    """The best of some runs' figures by metric; of one that has no better direction, none."""

    def __getitem__(self, name: str) -> float | None:
        values = [value for figures in self._figures if (value := figures.get(name)) is not None and isfinite(value)]
        return metric(name).best(values) if values and metric(name).better else None


@dataclass(frozen=True)
class GroupRow(RunRow):
    """Runs on one line: its figures are their means, its settings those that all have."""

    members: tuple[RunRow, ...] = field(default=(), hash=False)


def group_of(row: RunRow, by: str) -> str:
    """What tells the group of a run; "" where it is in none."""
    if by == SEED:
        return row.arm
    if by == STUDY:
        return next((tag.removeprefix(STUDY_TAG) for tag in row.tags if tag.startswith(STUDY_TAG)), "")
    return value_text(row.settings[by]) if by in row.settings else ""


@lru_cache(maxsize=2048)  # the rows of finished runs stay the same from look to look
def group(by: str, key: str, members: tuple[RunRow, ...], jobs: tuple[RunRow, ...] = ()) -> GroupRow:
    """The line of some runs; of a study, which is not over before its transfer evaluations (`jobs`) are, with the best
    figures of these runs."""
    first = members[0]
    states = Counter(row.state for row in (*members, *jobs))
    alike = {name: values.pop() for name in COMMON if len(values := {getattr(row, name) for row in members}) == 1}
    created = [row.created for row in members if row.created is not None]
    common = ((key, v) for key, v in first.settings.items() if all(row.settings.get(key) == v for row in members))
    return GroupRow(
        id=f"group {by} {key}",
        path=first.path,
        name=key if by == STUDY else seeds_name(members) if by == SEED else f"{len(members)}× {by} = {key}",
        state=min(states, key=state_place),
        step=sum(row.state == "finished" if by == STUDY else row.step for row in members),
        total=len(members) if by == STUDY else sum(row.total for row in members),
        eta_s=max((row.eta_s for row in members if row.eta_s is not None), default=None),
        created=max(created, default=None),
        seed=first.seed if len({row.seed for row in members}) == 1 else None,
        message="",
        latest=(Best if by == STUDY else Means)([row.latest for row in members]),
        tags=tuple(tag for tag in first.tags if all(tag in row.tags for row in members)),
        kind=STUDY_KIND if by == STUDY else first.kind,
        pinned=any(row.pinned for row in members),
        settings=first.settings if by == SEED else dict(common),
        summaries=(Best if by == STUDY else Means)([row.summaries for row in members]),
        members=members,
        **{"device": "", **alike},
    )


def seeds_name(members: Sequence[RunRow]) -> str:
    """What runs are called that differ by their seeds only."""
    return f"{len(members)}× {common_name([row.name for row in members])}"


def value_text(value: Any) -> str:
    """A setting's value in a few characters: 0.05, dm, 20+10."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(value_text, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def differing(rows: Sequence[RunRow]) -> list[str]:
    """The settings in which runs differ, in the order of presets. One that only some have differs if it has other
    values among these, or tells that a penalty or term is there at all."""
    arms = list({row.arm: row.settings for row in rows if row.settings}.values())
    values: dict[str, set[Any]] = {}
    for settings in arms:
        for key, value in settings.items():
            values.setdefault(key, set()).add(value)
    counts = Counter(key for settings in arms for key in settings)
    return [key for key, kinds in values.items() if len(kinds) > 1 or (counts[key] < len(arms) and TELLING.search(key))]
