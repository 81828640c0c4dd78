"""The report's figures as data: those of `lreg plot` on the winners' runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engine.base.errors import LregError
from engine.comparison import Arm
from engine.figures import Block, blocks, evaluated
from engine.figures.base import MOST_TASKS
from engine.runs.reader import RunReader
from engine.runs.writer import slug
from engine.study.report.evidence import Evidence

TRANSFERRED = ("curves", "sharpness", "accuracy", "frontier")


def figures(study: Evidence) -> Iterator[tuple[str, Block]]:
    """File names and what is drawn there; what there are no data for is left out."""
    arms = sorted(map(_fresh, study.arms.values()), key=lambda arm: arm.label != study.plan.reference)
    names = list(study.tasks) if len(study.tasks) > MOST_TASKS else [None]
    for index, name in enumerate(names if arms else ()):
        data = evaluated(arms, task=name)
        for figure in ("meta-loss", *TRANSFERRED) if index == 0 else TRANSFERRED:
            ending = f"-{slug(name)}" if name and figure in TRANSFERRED else ""
            try:
                (block,) = blocks(data, [figure])
            except LregError:  # there are no data for it: the tables say what is missing
                continue
            yield f"{figure}{ending}.png", block


def _fresh(arm: Arm) -> Arm:
    """With readers of its own, so that what is read for a figure is let go again."""
    return replace(arm, runs=tuple(replace(run, reader=RunReader(run.reader.path)) for run in arm.runs))
