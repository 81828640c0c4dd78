"""The command `lreg`: commands are registered here, and errors become exit codes."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from engine.device import wait_politely
from engine.errors import LregError
from lreg_tui import __version__
from lreg_tui.cli import (
    bench,
    compare,
    control,
    export,
    logs,
    look,
    machine,
    output,
    plot,
    presets,
    start,
    study,
    transfer,
)

app = typer.Typer(
    name="lreg",
    help="Meta-train learned optimizers that seek flat minima, and look at the runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(start.run)
app.command()(start.resume)
app.command()(control.stop)
app.command()(control.pause)
app.command("continue")(control.continue_)
app.command()(look.runs)
app.command()(look.show)
app.command()(look.watch)
app.command()(logs.logs)
app.command()(transfer.transfer)
app.command()(study.study)
app.command()(compare.compare)
app.command()(plot.plot)
app.command()(export.export)
app.command()(presets.presets)
app.add_typer(presets.app, name="preset")
app.command()(machine.doctor)
app.command()(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lreg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    wait_politely()
    output.never_fail_to_encode()
    try:
        app()
    except LregError as error:
        output.complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        output.close_stdout()


if __name__ == "__main__":
    main()
