"""Checkpoints: tensors as safetensors, everything else as JSON in the same file's header. No pickle.

One file is one commit: it is replaced whole, so a checkpoint is the old one or the new one, never a mixture. The JSON
is written a second time beside it for people; nothing reads that copy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import RunError
from engine.base.files import make_folder, read_tensors, strict, write_atomic
from engine.runs.reader import CHECKPOINTS

if TYPE_CHECKING:
    from torch import Tensor

HEADER_KEY = "lreg"


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Replace the checkpoint `name`. Values must be JSON (tuples come back as lists); not finite floats are kept."""
    from safetensors.torch import save as to_bytes  # imports torch

    copies = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    make_folder(folder)
    data = to_bytes(copies, metadata={HEADER_KEY: json.dumps(values)})
    write_atomic(path_of(folder, name), data)
    write_atomic(folder / f"{name}.json", json.dumps(strict(values), indent=1) + "\n")


def load(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and values of a checkpoint. Raises RunError when it is missing or damaged."""
    path = path_of(folder, name)
    try:
        tensors, metadata = read_tensors(path, below=folder.parent)
        values = json.loads(metadata[HEADER_KEY])
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint; the run stopped before it was written") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = f"start again with: lreg run {folder.parent / 'preset.toml'}"
        raise RunError(f"{path}: damaged checkpoint ({reason}); {advice}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: damaged checkpoint (its values are no table)")
    return tensors, values


def load_frozen(run_path: str | os.PathLike[str], name: str = "best") -> dict[str, Tensor]:
    """The meta-parameters of a run's learned optimizer, for use, on the CPU. Raises RunError where there are none."""
    if name not in CHECKPOINTS:
        raise RunError(f"checkpoint: found {name!r}; allowed: {', '.join(CHECKPOINTS)}")
    tensors, _ = load(Path(run_path) / "checkpoint", name)
    phi = {name.removeprefix("frozen/"): tensor for name, tensor in tensors.items() if name.startswith("frozen/")}
    if not phi:
        raise RunError(f"{run_path}: checkpoint {name} holds no learned optimizer")
    return phi


def exists(folder: Path, name: str) -> bool:
    return os.path.lexists(path_of(folder, name))


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
