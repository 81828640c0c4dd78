"""Learned optimizers that come with lreg: NAME.safetensors in this folder, as `lreg export` writes it, for lreg:NAME.

The preset that each was meta-trained with is the shipped preset of the same name; docs/shipped.md is the report.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.base.errors import RunError, printable

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
