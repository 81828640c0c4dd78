"""The console, `lreg-tui`: its start, the app that wires the screens, and what is the same everywhere in it."""

from __future__ import annotations

import os

from lreg_tui.system.shadows import start

TYPE_CHECKING = False  # nothing is imported before the signals are taken care of
if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

    from lreg_tui.app.console import LregApp

PLUGIN = (
    "Python code of yours with more tasks, learned optimizers, penalties, terms or estimators, beside what is "
    "installed and named in LREG_PLUGINS; may be given again"
)
INCAPABLE = ("dumb", "unknown")  # terminals that only print line after line


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    import argparse
    from pathlib import Path

    from engine.base.errors import printable
    from lreg_tui import __version__

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            super().error(printable(message))

    parser = Parser(prog="lreg-tui", description="The console of lreg. Press ? in it for its keys.")
    parser.add_argument("--runs-dir", metavar="DIR", type=Path, help="where runs live; else LREG_RUNS_DIR, else ./runs")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where datasets lie; else LREG_DATA_DIR")
    parser.add_argument("--plugin", metavar="FILE_OR_MODULE", action="append", default=[], help=PLUGIN)
    parser.add_argument("--slow-link", action="store_true", help="redraw seldom and animate nothing")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--version", action="version", version=f"lreg-tui {__version__}")
    return parser.parse_args(arguments)


def make_app(options: argparse.Namespace) -> LregApp:
    """The console as it is asked for and configured. Raises SettingsError where its configuration is wrong."""
    if options.slow_link:  # read by Textual when it is imported
        os.environ.setdefault("TEXTUAL_FPS", "5")
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    from engine.runs.store import RunStore
    from lreg_tui.runs.run_columns import BY_KEY
    from lreg_tui.system import config, keys
    from lreg_tui.widgets import themes

    chosen = config.load(themes.names(), BY_KEY)
    keys.change(chosen.keys)  # before there are screens, which are made with their keys
    from lreg_tui.app.console import LregApp

    return LregApp(RunStore(options.runs_dir), data_dir=options.data_dir, slow_link=options.slow_link, config=chosen)


def foreign_encoding() -> str | None:
    """What the terminal is written in, where that is not UTF-8: escape codes would be drawn, and lines not."""
    import codecs
    import sys

    for stream in (sys.__stdout__, sys.__stderr__):  # the second is what Textual writes to
        name = getattr(stream, "encoding", None) or "unknown"
        try:
            is_utf8 = codecs.lookup(name).name == "utf-8"
        except LookupError:
            is_utf8 = False
        if not is_utf8:
            return name
    return None


def unfit() -> str | None:
    """Why the console cannot be drawn here."""
    if not all(map(os.isatty, (0, 1))):
        return "lreg-tui needs a terminal; without one use `lreg` (see lreg --help)"
    if not os.isatty(2):
        return "lreg-tui draws on its standard error, which is not the terminal; run it without 2>"
    if (kind := os.environ.get("TERM", "")) in INCAPABLE:
        return f"lreg-tui needs a terminal that it can draw on, and TERM is {kind}; use `lreg`"
    if (encoding := foreign_encoding()) is not None:
        return (
            f"lreg-tui draws with characters of UTF-8, and the terminal's encoding is {encoding}; set LC_ALL or "
            "PYTHONIOENCODING to one of UTF-8, such as LC_ALL=C.UTF-8, or use `lreg`"
        )
    return None


def main() -> int:
    return start(_main)


def _main() -> int:
    import sys

    from engine.base import interrupts, plugins
    from engine.base.errors import LregError, printable
    from lreg_tui.system import terminal

    options = parse()
    try:
        plugins.use(options.plugin)  # here and in every process that the console starts
        if (reason := unfit()) is not None:
            print(f"error: {reason}", file=sys.stderr)
            if os.isatty(1) and not os.isatty(2):  # where whoever has typed it looks
                print(f"error: {reason}")
            return 2
        terminal.end_with_it()
        app = make_app(options)
    except LregError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if app.store.root.exists() and not app.store.root.is_dir():
        print(f"error: {printable(str(app.store.root))}: not a folder: runs cannot live there", file=sys.stderr)
        return 2
    from lreg_tui.app import pasted

    pasted.install(app.takes_text)
    terminal.end_when_told(app)
    try:
        app.run(mouse=not options.no_mouse)
    finally:
        interrupts.hold()
    return app.return_code or 0
