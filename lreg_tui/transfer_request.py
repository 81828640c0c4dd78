"""What a transfer evaluation is asked for, as text: the options of `lreg transfer`, and the console's form.

Both become plans here, so that both mean and refuse the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.document import Document, override
from engine.errors import PresetError, Problem, SettingsError
from engine.runs import RunReader
from engine.settings import check_table, schema_of, show
from engine.transfer_plan import Plan, TransferSettings, make

TABLES = ("task", "evaluation")  # of a preset, that --set may change here


@dataclass(frozen=True)
class TransferRequest:
    """Numbers and lists are text as it was typed. No target: what the first run was meta-trained on."""

    to: tuple[str, ...] = ()
    steps: str = "0"
    seeds: str = "5"
    marks: str = ""
    radii: str = ""
    scales: str = "1"
    checkpoint: str = "best"
    untrained: bool = False
    baselines: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


def plan(readers: Sequence[RunReader], request: TransferRequest) -> Plan:
    """The plan of a request. Raises PresetError, whose problems are named after the options, or RunError."""
    changes = changes_of(request)
    return make(readers, request.to, settings_of(request), changes)


def settings_of(request: TransferRequest) -> TransferSettings:
    """Checked; problems are named after the options. Raises PresetError."""
    wanted = {
        "steps": _number(request.steps),
        "seeds": _number(request.seeds),
        "marks": [_number(text) for text in _split(request.marks)],
        "scales": [_number(text) for text in _split(request.scales)] or [1.0],
        "checkpoint": request.checkpoint,
        "untrained": request.untrained,
        "baselines": list(dict.fromkeys(request.baselines)),
    }
    values, problems = check_table(wanted, schema_of(TransferSettings), "")
    if problems:
        names = {"baselines": "--baseline"}
        raise PresetError([Problem(names.get(p.path, f"--{p.path}"), p.found, p.allowed, p.hint) for p in problems])
    return TransferSettings(**values)


def changes_of(request: TransferRequest) -> Mapping[str, Any]:
    """The tables that --set and --radii ask for. Raises PresetError."""
    from engine import catalog

    document = Document({}, [])
    problems = override(document, request.sets, catalog.load())
    foreign = [key for key in document.values if key not in TABLES]
    problems += [
        Problem(key, "a table that a transfer evaluation has no use for", ", ".join(TABLES), source="--set")
        for key in foreign
    ]
    if problems:
        raise PresetError(problems)
    changes: dict[str, Any] = document.values
    if request.radii:
        changes.setdefault("evaluation", {})["radii"] = [_number(text) for text in _split(request.radii)]
    return changes


def check_device(text: str) -> None:
    """Whether a device can be meant by that; if it is there, only torch can tell. Raises SettingsError."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", text):
        raise SettingsError([Problem("--device", show(text), "auto, cpu, cuda, cuda:N, mps")])


def unique(readers: Iterable[RunReader]) -> list[RunReader]:
    """Each run once, in the order given."""
    return list({reader.path: reader for reader in readers}.values())


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> Any:
    """A number as it was typed; what is none is left for the check to complain about."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
