"""What a typed text means as a number."""

from __future__ import annotations

from typing import Any

from engine.base.settings import Typed


def number(text: str) -> Any:
    """An int or a float, as it was typed; what is none stays text, for the check to complain about."""
    for kind in (int, Typed):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
