"""Arguments and options that several commands share, and their shell completion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from engine.runs import RunStore

HARMLESS = re.compile(r"[\w.-]+", re.ASCII)  # what a shell may be given to complete


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    names = [reader.id for reader in RunStore(ctx.params.get("runs_dir")).list()]
    return [name for name in ("last", *reversed(names)) if name.startswith(incomplete) and HARMLESS.fullmatch(name)]


def complete_preset(incomplete: str) -> list[str]:
    from engine.preset import shipped

    files = [str(path) for path in sorted(Path().glob("*.toml"))]
    return [name for name in (*shipped(), *files) if name.startswith(incomplete) and HARMLESS.fullmatch(name)]


RunReference = Annotated[
    str,
    typer.Argument(metavar="RUN", help="An id, a unique prefix, a path, or `last`.", autocompletion=complete_run),
]
PresetReference = Annotated[
    str,
    typer.Argument(metavar="PRESET", help="A path, or the name of a shipped preset.", autocompletion=complete_preset),
]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Where runs live. Default: $LREG_RUNS_DIR, else ./runs."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where datasets lie. Default: $LREG_DATA_DIR, else a cache."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, and nothing else there.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the preset; may be given again."),
]
