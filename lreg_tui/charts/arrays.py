"""numpy, which is imported when something of it is first used: that would hold up the console's first paint.

from lreg_tui.charts.arrays import numpy
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as numpy
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            value = self.__dict__[name] = getattr(numpy, name)
            return value

    numpy = _Numpy()
