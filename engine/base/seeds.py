"""Seeds: one meta-seed, and from it an independent seed for every purpose, the same on every machine."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed below 2^63 for a purpose such as ("unroll", 3, "theta"); equal inputs give equal seeds, everywhere."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
