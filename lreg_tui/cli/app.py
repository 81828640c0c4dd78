"""The command `lreg`, from the first moment on: signals and streams are taken care of before anything else is read."""

from __future__ import annotations

import sys

from engine import interrupts


def main() -> None:
    interrupts.hold()
    from lreg_tui.streams import guarded

    sys.exit(guarded(_main))


def _main() -> int:
    from engine.device import wait_politely
    from lreg_tui.cli import commands, output

    wait_politely()
    output.never_fail_to_encode()
    return commands.main()


if __name__ == "__main__":
    main()
