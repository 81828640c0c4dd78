"""A learned optimizer as one file that stands for itself: meta-parameters, and in the header what they belong to.

A safetensors file; its header's metadata are text:

    format        "lreg learned optimizer"         version       of this layout: "1"
    optimizer     the [optimizer] table as JSON    preset        the whole preset as TOML
    checkpoint    best, last or initial            scale         factor of every update
    run           id of the run                    lreg_version  who wrote it
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import LregError, RunError, printable
from engine.base.files import read_tensors
from engine.export.target import check_target, write_file
from engine.runs.store import RunReader

if TYPE_CHECKING:
    from engine.optimizers.learned.base import LearnedOptimizer, Phi

FORMAT = "lreg learned optimizer"
VERSION = 1
TEXTS = ("optimizer", "preset", "checkpoint", "scale", "run", "lreg_version")
LARGEST = 2**30  # bytes of a file that is read whole
ALIGNMENT = 8  # of the header of a safetensors file


def export_optimizer(
    run: RunReader,
    path: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    scale: float = 1.0,
    force: bool = False,
) -> dict[str, Any]:
    """Write a run's learned optimizer to a new safetensors file; returns its facts, as `load_exported` does.

    Equal runs give equal files. Raises RunError where there is no such checkpoint, LregError where the file is there
    already or cannot be written, ValueError for a scale that is not positive and finite.
    """
    check_target(Path(path), force=force)
    import safetensors.torch

    from engine.evaluation.frozen import load_learned_optimizer
    from engine.export.torch_optim.parameters import number
    from engine.runs.provenance import describe

    scale = number("scale", scale)

    _, phi = load_learned_optimizer(run, checkpoint)
    preset = run.preset()
    facts = {
        "optimizer": preset["optimizer"],
        "preset": preset.dumps(),
        "checkpoint": checkpoint,
        "scale": scale,
        "run": run.id,
        "lreg_version": describe()["versions"]["lreg"] or "",
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    data = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in phi.items()},
        metadata={"format": FORMAT, "version": str(VERSION), **texts},
    )
    write_file(Path(path), _ordered(data), force=force)
    return facts


def load_exported(path: str | os.PathLike[str]) -> tuple[LearnedOptimizer, Phi, dict[str, Any]]:
    """Read a file that `export_optimizer` wrote: the learned optimizer, meta-parameters on the CPU, and facts.

    Facts: "optimizer" (the [optimizer] table), "preset" (TOML), "checkpoint", "scale", "run", "lreg_version". Raises
    RunError, one line, for a file that is missing, damaged, or something else; nothing in it is ever executed.
    """
    path_text = printable(str(path))
    try:
        phi, texts = read_tensors(Path(path), limit=LARGEST)
    except OSError as error:
        raise RunError(f"{path_text}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path_text}: damaged, or no safetensors file ({printable(str(error))})") from None
    if texts.get("format") != FORMAT:
        raise RunError(f"{path_text}: no learned optimizer that `lreg export` wrote")
    version = texts.get("version", "")
    if version != str(VERSION):
        raise RunError(f"{path_text}: version {printable(version[:20])!r} of the format, this lreg knows {VERSION}")
    missing = [key for key in TEXTS if key not in texts]
    if missing:
        raise RunError(f"{path_text}: damaged: its header has no {missing[0]}")
    facts = {**{key: texts[key] for key in TEXTS}, "scale": _scale(texts["scale"], path_text)}
    optimizer, facts["optimizer"] = _optimizer(texts["optimizer"], path_text)
    _check_tensors(optimizer, phi, path_text)
    return optimizer, phi, facts


def _scale(text: str, path_text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise RunError(f"{path_text}: damaged: its scale is {printable(text[:40])!r}, should be a positive number")
    return scale


def _optimizer(text: str, path_text: str) -> tuple[LearnedOptimizer, dict[str, Any]]:
    from engine.optimizers.learned.base import LEARNED_OPTIMIZERS

    try:
        table = json.loads(text)
        settings = dict(table)
        optimizer = LEARNED_OPTIMIZERS.create(settings.pop("kind"), **settings)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RunError(f"{path_text}: damaged: its [optimizer] table cannot be read") from None
    except LregError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path_text}: its [optimizer] table does not fit this lreg: {reason}") from None
    return optimizer, {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _check_tensors(optimizer: LearnedOptimizer, phi: Phi, path_text: str) -> None:
    import torch

    from engine.optimizers.learned.base import fits

    if not fits(optimizer, phi):
        raise RunError(f"{path_text}: damaged: its tensors do not fit its [optimizer] table")
    for name, tensor in phi.items():
        if tensor.dtype not in (torch.float32, torch.float64) or not tensor.isfinite().all():
            raise RunError(f"{path_text}: damaged: {printable(name)} holds no finite numbers in float32 or float64")


def _ordered(data: bytes) -> bytes:
    """A safetensors file with its header in order: safetensors writes metadata in an order that varies."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
