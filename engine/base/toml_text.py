"""TOML as people write it: a list of numbers or words stands on one line, where it fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomli_w

LONGEST_LINE = 120
# tomli_w gives every item a line of its own, four blanks in; strings are on one line each, so this finds lists only
LIST = re.compile(r"^(?P<key>.+ = )\[\n(?P<items>(?: {4}(?! |[\[{]\n).*,\n)+)\]$", re.MULTILINE)


def dumps(values: Mapping[str, Any]) -> str:
    """The document of these tables. Lists of lists, and those too long for a line, keep a line for each item."""
    return LIST.sub(_on_one_line, tomli_w.dumps(values))


def _on_one_line(match: re.Match[str]) -> str:
    items = (line[4:-1] for line in match["items"].split("\n")[:-1])  # strings may hold other ends of lines
    line = f"{match['key']}[{', '.join(items)}]"
    return line if len(line) <= LONGEST_LINE else match[0]
