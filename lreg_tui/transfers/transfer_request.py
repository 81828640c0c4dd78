"""What a transfer evaluation is asked for, as text: the options of `lreg transfer`, and the console's form.

Both become plans here, so that both mean and refuse the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base import device
from engine.base.errors import PresetError, Problem, SettingsError
from engine.base.settings import check_table, schema_of, show
from engine.evaluation.transfer_plan import MOST_STEPS, Plan, TransferSettings, make, marks_within
from engine.presets.document import Document, override
from engine.runs.store import RunReader
from lreg_tui.presets.toml_edit import number

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
    weight_decays: str = "0"
    sam: str = ""
    checkpoint: str = "best"
    untrained: bool = False
    baselines: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


def plan(readers: Sequence[RunReader], request: TransferRequest) -> Plan:
    """The plan of a request. Raises PresetError, whose problems are named after the options, or RunError."""
    return make(readers, request.to, settings_of(request), changes_of(request))


def settings_of(request: TransferRequest) -> TransferSettings:
    """Checked; problems are named after the options. Raises PresetError.

    Of several numbers of steps the largest counts, and the others are marks: one unroll passes them all. So do the
    optimizees of the largest of several numbers of seeds hold all others.
    """
    steps, marks, seeds = (_numbers(text) for text in (request.steps, request.marks, request.seeds))
    if len(steps) > 1 and all(isinstance(count, int) and 0 < count < MOST_STEPS for count in steps):
        last = max(steps)
        marks = [*(marks or marks_within(last)), *(count for count in steps if count != last)]
        steps = [last]
    table = {
        "steps": steps[0] if len(steps) == 1 else steps,
        "seeds": max(seeds) if seeds and all(isinstance(count, int) for count in seeds) else request.seeds,
        "marks": marks,
        "scales": _numbers(request.scales) or [1.0],
        "weight_decays": _numbers(request.weight_decays) or [0.0],
        "sam": _numbers(request.sam),
        "checkpoint": request.checkpoint,
        "untrained": request.untrained,
        "baselines": list(dict.fromkeys(request.baselines)),
    }
    values, problems = check_table(table, schema_of(TransferSettings), "")
    if problems:
        names = {"baselines": "--baseline", "weight_decays": "--weight-decays"}
        raise PresetError([Problem(names.get(p.path, f"--{p.path}"), p.found, p.allowed, p.hint) for p in problems])
    return TransferSettings(**values)


def changes_of(request: TransferRequest) -> Mapping[str, Any]:
    """The tables that --set and --radii ask for. Raises PresetError."""
    from engine.presets import catalog

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
        changes.setdefault("evaluation", {})["radii"] = _numbers(request.radii)
    return changes


def check_device(text: str) -> None:
    """Whether a device can be meant by that; if it is there, only torch can tell. Raises SettingsError."""
    if not device.NAMES.fullmatch(text):
        raise SettingsError([Problem("--device", show(text), device.ALLOWED)])


def unique(readers: Iterable[RunReader]) -> list[RunReader]:
    """Each run once, in the order given."""
    return list({reader.path: reader for reader in readers}.values())


def _numbers(text: str) -> list[Any]:
    return [number(part.strip()) for part in text.split(",") if part.strip()]
