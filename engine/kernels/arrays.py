"""Arrays that one truncation leaves to the next: fresh pages cost more than much of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BYTES_KEPT = 2**29  # between two truncations


def array(dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory on the CPU that holds anything."""
    try:
        return _ARRAYS[dtype, shape].pop()
    except (KeyError, IndexError):
        return torch.empty(shape, dtype=dtype)


_ARRAYS: dict[tuple[torch.dtype, tuple[int, ...]], list[Tensor]] = {}


def give_back(arrays: Sequence[Tensor]) -> None:
    """Keep arrays that nobody uses any more for the next truncation of the same shape; not more than a bound."""
    held = sum(array.nbytes for pool in _ARRAYS.values() for array in pool)
    for array in arrays:
        held += array.nbytes
        if held > BYTES_KEPT:
            forget_arrays()
            return
        _ARRAYS.setdefault((array.dtype, tuple(array.shape)), []).append(array)


def forget_arrays() -> None:
    """Give the kept arrays back to the system."""
    _ARRAYS.clear()
