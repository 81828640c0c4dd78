"""Bindings of keys by their meaning: the key, and what a footer calls it, are those of the one table.

BINDINGS = [bind("stop", "stop_run", tooltip="finish the truncation, write a checkpoint, and end")]
"""

from __future__ import annotations

from textual.binding import Binding

from lreg_tui.system.keys import KEYS


def bind(
    meaning: str,
    action: str,
    word: str = "",
    tooltip: str = "",
    *,
    keys: str = "",
    show: bool = True,
    priority: bool = False,
    group: Binding.Group | None = None,
) -> Binding:
    """`word` is one of the meaning's, the first without it; `keys` are some of its keys, without it all of them."""
    key = KEYS[meaning]
    return Binding(
        keys or key.names,
        action,
        word or key.words[0],
        show=show,
        priority=priority,
        tooltip=tooltip or key.meaning,
        group=group,
    )
