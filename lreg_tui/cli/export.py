"""Take a run elsewhere: export."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from engine.base.errors import LregError
from engine.runs.reader import CHECKPOINTS, RunReader
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    Plugins,
    RunReference,
    RunsDir,
    checked,
    choice,
    find_one_run,
    flag,
    numeric,
    option,
)
from lreg_tui.presets import toml_edit
from lreg_tui.text import present

ENDINGS = {
    "safetensors": ".safetensors",
    "html": ".html",
    "tensorboard": "-tensorboard",
    "csv": "-csv",
}  # of the default path
TARGET = "A new file (safetensors, html) or folder. Default: the run's id and an ending, in this folder."
CHECKPOINT = f"One of: {', '.join(CHECKPOINTS)}. Default: best."
SCALE = "Factor of every update, or `best`: chosen on validation. Default: 1."
FACTOR = numeric("--scale", "float", above=0.0, maximum=1e6)


def export(
    reference: RunReference,
    to: Annotated[str, choice("--to", "FORM", tuple(ENDINGS), f"One of: {', '.join(ENDINGS)}.")],
    target: Annotated[Path | None, option("-o --output", "PATH", TARGET)] = None,
    checkpoint: Annotated[str | None, choice("--checkpoint", "NAME", CHECKPOINTS, CHECKPOINT)] = None,
    scale: Annotated[str | None, option("--scale", "S", SCALE)] = None,
    force: Annotated[bool, flag("--force", "Replace an export that is there already.")] = False,
    runs_dir: RunsDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Write the learned optimizer (safetensors), the run as a page (html), or its metrics (tensorboard, csv).

    The safetensors file stands for itself: engine.load_optimizer takes it in place of a run. The page is one file with
    curves, results and settings, which any browser opens and which loads nothing from elsewhere.
    """
    for name, value in (("--checkpoint", checkpoint), ("--scale", scale)):
        if value is not None and to != "safetensors":
            raise LregError(f"{name}: goes with --to safetensors alone, found --to {to}")
    reader = find_one_run(reference, runs_dir)
    path = target or Path(f"{reader.id}{ENDINGS[to]}")
    facts, words = _export(reader, to, path, checkpoint or "best", scale or "1", force)
    if as_json:
        output.emit({"run": reader.id, "to": to, "path": str(path.absolute()), **facts})
    else:
        print(present.clean(path, 4000))
        output.say(words)


def _export(
    reader: RunReader, to: str, path: Path, checkpoint: str, scale: str, force: bool
) -> tuple[dict[str, Any], str]:
    """Do it; what is worth telling about it, for programs and for people."""
    from engine.export import optimizer, tables, target

    if to == "csv":
        rows = tables.export_csv(reader, path, force=force)
        return {"rows": rows}, ", ".join(f"{name}: {count} rows" for name, count in rows.items())
    if to == "html":
        from lreg_tui.runs.run_page import page_of

        target.write_file(path, page_of(reader).encode(), force=force)
        return {}, "one file that loads nothing from elsewhere: send it, or open it in a browser"
    if to == "tensorboard":
        values = tables.export_tensorboard(reader, path, force=force)
        look = f"look at them with: tensorboard --logdir {shlex.quote(str(path))}"
        return {"values": values}, f"{len(values)} metrics; {look}"
    if scale == "best":
        from engine.evaluation.scale import best_scale

        factor = best_scale(reader)
    else:
        factor = checked(FACTOR, toml_edit.number(scale))
    written = optimizer.export_optimizer(reader, path, checkpoint=checkpoint, scale=factor, force=force)
    facts = {key: written[key] for key in ("optimizer", "checkpoint", "scale", "lreg_version")}
    return facts, f"{facts['optimizer']['kind']}, checkpoint {checkpoint}, scale {present.setting(facts['scale'])}"
