"""The commands of `lreg` are registered here, and errors become exit codes."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer

from engine.base import interrupts
from engine.base.errors import LregError, printable
from lreg_tui import __version__
from lreg_tui.cli import (
    backbone,
    bench,
    compare,
    control,
    diagnose,
    export,
    look,
    machine,
    output,
    plot,
    presets,
    study,
    transfer,
)
from lreg_tui.cli.options import SingleValueCommand

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # click's; typer has it under changing names
COMMANDS = (
    *(control.run, control.resume, backbone.backbone, control.stop, control.pause, control.continue_),
    *(look.runs, look.show, look.watch, look.logs),
    *(transfer.transfer, study.study, diagnose.diagnose, compare.compare, plot.plot, export.export),
    *(presets.presets, machine.doctor, bench.bench),
)

app = typer.Typer(
    name="lreg",
    help="Meta-train learned optimizers that seek flat minima, and look at the runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"), cls=SingleValueCommand)(command)
app.add_typer(presets.app, name="preset")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"lreg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> int:
    """Do what the command line says. Returns the exit code."""
    interrupts.let_raise()
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except LregError as error:
        output.complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return interrupts.CODE
    except USAGE_ERROR as error:
        return _tell_usage(error)
    finally:
        interrupts.hold()


def _tell_usage(error: Any) -> int:
    """How a command is used; what was typed does no harm to the terminal."""
    usage, message = io.StringIO(), error.format_message()
    error.show(file=usage)
    is_help = error.ctx is not None and message == error.ctx.get_help()  # of a command that was given nothing
    text = usage.getvalue() if is_help else usage.getvalue().replace(message, printable(message))
    print(text, end="", file=sys.stderr, flush=True)
    return error.exit_code
