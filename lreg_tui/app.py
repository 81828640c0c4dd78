"""The console."""

from __future__ import annotations

import sys


def main() -> int:
    print("lreg-tui: the console is not there yet; use `lreg` (see `lreg --help`)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
