"""The command `lreg`, from its first moment on: signals and streams are taken care of before anything else is read."""

import _signal  # type: ignore[import-not-found]
import os


def main() -> None:
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))  # until engine.base.interrupts is there
    import sys

    from lreg_tui.system.shadows import refuse_a_hidden_engine

    refuse_a_hidden_engine()
    from engine.base import interrupts

    interrupts.hold()
    from lreg_tui.system.streams import guarded

    sys.exit(guarded(_main))


def _main() -> int:
    from engine.base.device import wait_politely
    from lreg_tui.cli import commands, output

    wait_politely()
    output.never_fail_to_encode()
    return commands.main()


if __name__ == "__main__":
    main()
