"""Take a run elsewhere: export."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base.errors import LregError, SettingsError
from engine.base.settings import Setting
from engine.runs.reader import CHECKPOINTS, RunReader
from lreg_tui.cli import output
from lreg_tui.cli.options import AsJson, RunReference, RunsDir, check_choice, complete_checkpoint, find_one_run
from lreg_tui.text import present

ENDINGS = {"safetensors": ".safetensors", "tensorboard": "-tensorboard", "csv": "-csv"}  # of the default path
FORMS = tuple(ENDINGS)
OPTIMIZER_ONLY = "goes with --to safetensors alone"


def complete_form(incomplete: str) -> list[str]:
    return [form for form in FORMS if form.startswith(incomplete)]


def export(
    reference: RunReference,
    to: Annotated[
        str, typer.Option("--to", metavar="FORM", help=f"One of: {', '.join(FORMS)}.", autocompletion=complete_form)
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A new file (safetensors) or folder. Default: the run's id and an ending, in this folder.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="NAME",
            help=f"One of: {', '.join(CHECKPOINTS)}. Default: best.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", metavar="S", help="Factor of every update, or `best`: chosen on validation. Default: 1."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there already.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write the learned optimizer (safetensors) or the figures of a run (tensorboard, csv) for other tools.

    The safetensors file stands for itself: engine.load_optimizer takes it in place of a run.
    """
    check_choice("--to", to, FORMS)
    check_choice("--checkpoint", checkpoint, CHECKPOINTS)
    for option, value in (("--checkpoint", checkpoint), ("--scale", scale)):
        if value is not None and to != "safetensors":
            raise LregError(f"{option}: {OPTIMIZER_ONLY}, found --to {to}")
    reader = find_one_run(reference, runs_dir)
    path = target or Path(f"{reader.id}{ENDINGS[to]}")
    facts = _export(reader, to, path, checkpoint or "best", scale or "1", force)
    if as_json:
        output.emit({"run": reader.id, "to": to, "path": str(path.absolute()), **facts})
    else:
        print(present.clean(path, 4000))
        output.say(_summary(to, path, facts))


def _export(reader: RunReader, to: str, path: Path, checkpoint: str, scale: str, force: bool) -> dict[str, Any]:
    """Do it; what is worth telling about it."""
    from engine import export as exports

    if to == "csv":
        return {"rows": exports.export_csv(reader, path, force=force)}
    if to == "tensorboard":
        return {"values": exports.export_tensorboard(reader, path, force=force)}
    factor = _scale(reader, scale)
    facts = exports.export_optimizer(reader, path, checkpoint=checkpoint, scale=factor, force=force)
    return {key: facts[key] for key in ("optimizer", "checkpoint", "scale", "lreg_version")}


def _scale(reader: RunReader, text: str) -> float:
    """The factor that is meant. Raises SettingsError or RunError."""
    if text == "best":
        from engine.evaluation.scale import best_scale

        return best_scale(reader)
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    fit, problem = Setting("--scale", ("float",), 1.0, "", above=0.0, maximum=1e6).check(value)
    if problem is not None:
        raise SettingsError([problem])
    return float(fit)


def _summary(to: str, path: Path, facts: dict[str, Any]) -> str:
    if to == "csv":
        return ", ".join(f"{name}: {rows} rows" for name, rows in facts["rows"].items())
    if to == "tensorboard":
        return f"{len(facts['values'])} metrics; look at them with: tensorboard --logdir {shlex.quote(str(path))}"
    return f"{facts['optimizer']['kind']}, checkpoint {facts['checkpoint']}, scale {present.setting(facts['scale'])}"
