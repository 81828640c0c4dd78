"""Kinds of jobs: what the folders of a run store are of, and what can be done with each. Known without torch.

What does the work of each kind is an `engine.jobs.job_runner.JobRunner`; `engine.worker` knows them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.settings import show


@dataclass(frozen=True)
class JobKind:
    """One kind of what runs in a process of its own. The defaults are those of a kind that is not known."""

    name: str  # in run.json
    words: str  # for people: what it is
    home: str = ""  # the folder of such jobs in a run store; "": the store itself
    document: str = ""  # the file that says what is to be done
    unit: str = "step"  # what its progress counts
    ending: str = "stopping, when what is at hand is done"  # what one that was told to stop waits for
    preserved: str = "what it has written"  # what an end before time does not take away
    deleting: str = "The folder goes, with all that is in it."
    memory_settings: str = ""  # to lower where memory does not suffice
    instead: str = "a run"  # what to name where only a run will do
    has_curves: bool = False  # over so many steps that its metrics are drawn, marked and compared as curves
    actions: frozenset[str] = frozenset()
    """resume, edit (its preset), share (among processes), transfer, compare: what some kinds allow.

    All are listed, watched, stopped, paused, continued, renamed, tagged, pinned and deleted.
    """


RUN = JobKind(
    "run",
    "a run",
    document="preset.toml",
    unit="meta-step",
    ending="stopping: the truncation at hand is finished and a checkpoint written",
    preserved="the last checkpoint",
    deleting="The folder goes, with checkpoints, metrics and transfer evaluations.",
    memory_settings="meta.meta_batch, meta.truncation",
    has_curves=True,
    actions=frozenset(("resume", "edit", "share", "transfer", "compare")),
)
TRANSFER = JobKind(
    "transfer",
    "a transfer evaluation",
    home=".transfers",
    document="plan.json",
    unit="evaluation",
    preserved="what was measured",
    deleting="What it has measured stays with the runs.",
    memory_settings="evaluation.examples",
    instead="one of the runs that it evaluated",
    actions=frozenset(("resume",)),
)
STUDY = JobKind(
    "study",
    "a study",
    home=".studies",
    document="study.json",
    unit="run or transfer",
    ending="stopping, when all its runs have written their checkpoints",
    preserved="what its runs have done",
    memory_settings="--jobs",
    instead="a run; no arm of it has a winner yet",
    actions=frozenset(("resume",)),
)
KINDS = {kind.name: kind for kind in (RUN, TRANSFER, STUDY)}


def kind_of(path: Path, facts: Mapping[str, Any]) -> JobKind:
    """The kind of a folder: as its run.json (`facts`) says; where that says nothing, by the document that is there."""
    name = facts.get("kind")
    if isinstance(name, str):
        return KINDS.get(name) or JobKind(name, f"of kind {show(name)}, which this version of lreg does not know")
    return next((kind for kind in KINDS.values() if (path / kind.document).exists()), RUN)
