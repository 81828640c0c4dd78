"""Learned optimizers that come with lreg: NAME.safetensors in this folder, as `lreg export` writes it, for lreg:NAME.

The preset that each was meta-trained with is the shipped preset of the same name; docs/shipped.md is the report.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.base.errors import RunError, printable
from engine.runs.store import Run, RunReader, RunStore

PREFIX = "lreg:"
FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"


def shipped_optimizers() -> list[str]:
    """The names, with the prefix."""
    return sorted(PREFIX + path.stem for path in FOLDER.glob("*" + SUFFIX))


def file_of(reference: str | os.PathLike[str]) -> str:
    """The file that `lreg:NAME` means; any other reference as it is. Raises RunError for an unknown NAME."""
    text = os.fspath(reference)
    if not text.startswith(PREFIX):
        return text
    if text not in shipped_optimizers():
        raise RunError(f"{printable(text)}: no shipped learned optimizer; there are: {', '.join(shipped_optimizers())}")
    return str(FOLDER / (text.removeprefix(PREFIX) + SUFFIX))


def run_of(reference: str, store: RunStore) -> RunReader:
    """The run folder that stands for `lreg:NAME` in a run store, made there if need be: `lreg-NAME`, with its preset
    and one checkpoint, best. What is measured of it is kept there, as with any run. Raises RunError.

    The scale that it is shipped at is part of its output_scale: at scale 1 it is what `load_optimizer` gives.
    """
    path = file_of(reference)
    if (reader := RunReader(store.root / reference.replace(":", "-"))).state == "finished":
        return reader
    import tomli

    from engine.export.optimizer import load_exported
    from engine.presets.preset import from_mapping
    from engine.runs import checkpoint

    optimizer, phi, facts = load_exported(path)
    table = {**facts["optimizer"], "output_scale": facts["scale"] * vars(optimizer)["output_scale"]}
    preset = from_mapping({**tomli.loads(facts["preset"]), "optimizer": table})
    run = Run.create(store.root, preset, run_id=reader.id)
    frozen = {f"frozen/{name}": tensor for name, tensor in phi.items()}
    checkpoint.save(run.checkpoints, facts["checkpoint"], frozen, {})
    run.set_status(state="finished", message=f"comes with lreg as {reference}")
    return RunReader(run.path)
