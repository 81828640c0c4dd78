"""The command `lreg`."""

import sys

from lreg_tui.system.shadows import start


def main() -> None:
    sys.exit(start(_main))


def _main() -> int:
    from engine.base.device import prepare_process
    from lreg_tui.cli import commands, output

    prepare_process()
    output.never_fail_to_encode()
    return commands.main()


if __name__ == "__main__":
    main()
