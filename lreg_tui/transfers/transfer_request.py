"""What a transfer evaluation is asked for, as text: the options of `lreg transfer`, and the console's form.

Both become plans here, so that both mean and refuse the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.base.errors import LregError, PresetError, Problem, SettingsError
from engine.base.settings import check_table, schema_of, show
from engine.evaluation.transfer_plan import MOST_STEPS, Plan, TransferSettings, make, marks_within
from engine.presets.document import Document, override
from engine.runs.store import RunReader
from lreg_tui.presets.toml_edit import number, toml_of
from lreg_tui.transfers.transfer_files import plan_of

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


def asked_by(job: RunReader, paths: Mapping[str, Path]) -> tuple[list[RunReader], TransferRequest, str]:
    """Runs, request and device that a transfer job was started with, of the runs that are there (`paths` by id).

    Raises RunError where its plan cannot be read.
    """
    known = plan_of(job)
    readers = [RunReader(paths[name]) for name in (Path(run).name for run in known.runs) if name in paths]
    return readers, request_of(known, readers), str(job.facts.get("device") or "auto")


def request_of(known: Plan, readers: Sequence[RunReader]) -> TransferRequest:
    """The request that asks for a plan once more; `readers` are those of its runs that are still there.

    What the runs' presets say by themselves is left out. Reads them.
    """
    settings, protocol = known.settings, known.protocol
    targets = tuple(dict.fromkeys(f"{task['dataset']}/{task['optimizee']}" for task in known.tasks))
    asked = TransferRequest(
        to=targets,
        steps=str(protocol.inner_steps),
        seeds=str(settings.seeds),
        marks=", ".join(map(str, settings.marks)),
        scales=", ".join(f"{scale:g}" for scale in settings.scales),
        checkpoint=settings.checkpoint,
        untrained=settings.untrained,
        baselines=settings.baselines,
    )
    try:
        own = [f"{task['dataset']}/{task['optimizee']}" for task in readers[0].preset().tasks] if readers else []
        asked = replace(asked, to=() if set(own) == set(targets) else targets)
        usual = plan(readers, asked) if readers else known
    except LregError:  # a checkpoint or a preset is not there any more: the form says so
        return asked
    radii = "" if usual.protocol.radii == protocol.radii else ", ".join(map(str, protocol.radii))
    return replace(asked, radii=radii, sets=tuple(_differing(known, usual)))


def _differing(known: Plan, usual: Plan) -> Iterator[str]:
    """The --set texts that make the tasks and probes of one plan of those of another, as far as there are any."""
    for key in ("examples", "restarts", "ascent_steps", "precision", "extended"):
        if (value := getattr(known.protocol, key)) != getattr(usual.protocol, key):
            yield f"evaluation.{key}={toml_of(value)}"
    for key in known.tasks[0] if len(known.tasks) == len(usual.tasks) else ():
        values = [task.get(key) for task in known.tasks]
        is_one = values[0] is not None and all(value == values[0] for value in values)
        if is_one and values != [task.get(key) for task in usual.tasks]:
            yield f"task.{key}={toml_of(values[0])}"


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
    wanted = {
        "steps": steps[0] if len(steps) == 1 else steps,
        "seeds": max(seeds) if seeds and all(isinstance(count, int) for count in seeds) else request.seeds,
        "marks": marks,
        "scales": _numbers(request.scales) or [1.0],
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
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", text):
        raise SettingsError([Problem("--device", show(text), "auto, cpu, cuda, cuda:N, mps")])


def unique(readers: Iterable[RunReader]) -> list[RunReader]:
    """Each run once, in the order given."""
    return list({reader.path: reader for reader in readers}.values())


def _numbers(text: str) -> list[Any]:
    return [number(part.strip()) for part in text.split(",") if part.strip()]
