"""Growing: arrays that get longer. Their memory is mapped, so it is taken when filled and given back at once."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

MAPPED = 2**16  # bytes; smaller arrays are numpy's own


class Growing:
    """A float64 array with room for more behind it."""

    def __init__(self) -> None:
        import numpy

        self.values = numpy.empty(0)
        self._buffer = self.values

    def grow(self, count: int) -> ndarray:
        """Make `values` longer, most often without moving them; returns the new part, which is to be filled."""
        done, length = len(self.values), len(self.values) + count
        if length > len(self._buffer):
            self._buffer = _room(length + length // 2)
            self._buffer[:done] = self.values
        self.values = self._buffer[:length]
        return self.values[done:]


class Elapsed:
    """Unix times as seconds since a run began, worked out once for all the charts that want them."""

    def __init__(self, times: ndarray, began: float) -> None:
        self.times = times  # to be replaced by longer ones that begin with them
        self._began = began
        self._found = Growing()

    def first(self, count: int) -> ndarray:
        """Those of the first records."""
        import numpy

        done = len(self._found.values)
        if count > done:
            numpy.subtract(self.times[done:count], self._began, out=self._found.grow(count - done))
        return self._found.values[:count]


def _room(count: int) -> ndarray:
    import numpy

    if count * 8 < MAPPED:
        return numpy.empty(count)
    return numpy.frombuffer(mmap.mmap(-1, count * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
