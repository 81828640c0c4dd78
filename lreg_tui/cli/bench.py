"""The speed of this machine: bench."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.base.device import pick_device
from engine.base.errors import LregError, TrainingError
from engine.bench import works
from lreg_tui.cli import output
from lreg_tui.cli.options import AsJson, whole_number
from lreg_tui.text import present

if TYPE_CHECKING:
    import torch
    from rich.table import Table

COLUMNS = (
    "work",
    "optimizer",
    "optimizee",
    "meta-\nbatch",
    "ms per\ninner step",
    "plain\neager",
    "times\nas fast",
    "coordinate-\nsteps/s",
    "of the\nlimit",
    "memory",
    "largest\nerror",
)
SCALING_COLUMNS = ("grows", "times", "coordinates", "truncation", "meta-batch", "ms", "ns per\ncoordinate-step")


def complete_piece(incomplete: str) -> list[str]:
    return [piece.name for piece in works.everything() if piece.name.startswith(incomplete)]


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="WORK/OPTIMIZER/OPTIMIZEE/B",
            help="One piece of work, such as meta-train/dm/mlp/1; may be given again.",
            autocompletion=complete_piece,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every piece of work that fits this machine.")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="How cost grows with coordinates, steps and meta-batch, and memory.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Measure each piece of work once, after a warm-up.")] = False,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps. Default: auto.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N", help="CPU threads. Default: those that torch takes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How fast this machine meta-trains and evaluates, against plain eager PyTorch in the same run.

    Both do the same work in turn, and their results are compared. Takes about two minutes on two cores.
    """
    pieces = _pieces(only or [], everything, scaling)
    number = None if threads is None else whole_number("--threads", threads, 1, os.cpu_count() or 1)
    place = pick_device(device or "auto")
    _warn_if_busy(number)
    if scaling:
        _show_scaling(place, quick, as_json)
        return
    lines = _measured(pieces, place, quick=quick, by_name=bool(only))
    rows = [_shown(line) for line in lines] if as_json else _collected(lines)
    if not as_json:
        _print_tables(rows)
    _refuse_errors(rows)


def _pieces(only: Sequence[str], everything: bool, scaling: bool) -> list[works.Piece] | None:
    """What is asked for; None: the usual. Raises LregError."""
    if sum((bool(only), everything, scaling)) > 1:
        raise LregError("--only, --all and --scaling exclude each other")
    if only:
        return list(dict.fromkeys(works.piece(text) for text in only))
    return works.everything() if everything else None


def _warn_if_busy(threads: int | None) -> None:
    """Set the number of threads, and say on stderr what makes timings worthless."""
    import torch

    from engine.bench import busy

    if threads is not None:
        torch.set_num_threads(threads)
    if problem := busy.look().problem:
        output.say(f"busy: {problem}")


def _measured(
    pieces: list[works.Piece] | None, device: torch.device, *, quick: bool, by_name: bool
) -> Iterator[dict[str, Any]]:
    """A line for every piece of work, as soon as it is there."""
    from engine.bench import limits
    from engine.bench.measure import Bench

    chosen = pieces if pieces is not None else works.usual(on_gpu=device.type != "cpu")
    output.say("the machine's limits")
    session = Bench(device, limits.measured(device), quick=quick, by_name=by_name)
    for index, piece in enumerate(chosen, 1):
        output.say(f"{index}/{len(chosen)} {piece.name}")
        yield session.measure(piece)


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    output.emit(line)
    return line


def _collected(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All lines; those before an interruption are printed all the same."""
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(lines)
    except KeyboardInterrupt:
        _print_tables(rows)
        raise
    return rows


def _name(row: dict[str, Any]) -> str:
    return works.Piece(row["work"], row["optimizer"], row["optimizee"], row["meta_batch"]).name


def _refuse_errors(rows: Iterable[dict[str, Any]]) -> None:
    """Raise TrainingError where a result is not the reference's."""
    wrong = [
        f"{_name(row)} ({row[f'max_error{kind}']:.1e})"
        for row in rows
        for kind in ("", "_float32")
        if "max_error" in row and not row[f"max_error{kind}"] <= row[f"error_bound{kind}"]
    ]
    if wrong:
        names = ", ".join(wrong)
        raise TrainingError(f"not the reference's numbers: {names}; LREG_KERNELS=plain does without kernels")


def _print_tables(rows: list[dict[str, Any]]) -> None:
    console = output.console()
    measured = [row for row in rows if "skipped" not in row]
    if measured:
        console.print(_table(measured))
        console.print(present.text(_caption(measured[0])))
    for row in rows:
        for key, what in (("skipped", "left out"), ("eager_skipped", "no comparison")):
            if key in row:
                console.print(present.text(f"{_name(row)}: {what}: {row[key]}", "dim"))
        if "ratio_to_adam" in row:
            console.print(present.text(_beside_adam(row), "dim"))


def _beside_adam(row: dict[str, Any]) -> str:
    """What a step takes: time as a multiple of Adam's, memory by parameter."""
    times, most, later = (row[key] for key in ("ratio_to_adam", "bytes_per_parameter", "extra_bytes_per_parameter"))
    memory = "" if most is None else f", at most {most:.0f} bytes a parameter, {later:.0f} beyond the state later on"
    return f"{_name(row)}: {times:.1f} times as long as Adam's step{memory}"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = _columns(COLUMNS, texts=3)
    for row in rows:
        table.add_row(
            *(present.text(row[key]) for key in ("work", "optimizer", "optimizee", "meta_batch")),
            present.number(row["ms_per_inner_step"], 3),
            present.number(row["eager_ms_per_inner_step"], 3),
            present.number(row["ratio_to_eager"], 3),
            present.number(row["coordinate_steps_per_s"], 3),
            present.percent(row["share_of_limit"], 0),
            present.size(row["memory_bytes"]),
            present.number(row["max_error"], 2),
        )
    return table


def _columns(names: Sequence[str], texts: int) -> Table:
    """An empty table whose first columns hold text, the others numbers."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(names):
        found.add_column(name, justify="left" if index < texts else "right", no_wrap=True)
    return found


def _caption(row: dict[str, Any]) -> str:
    rates = f"{row['limit_flops_per_s'] / 1e9:.0f} GFLOP/s, {row['limit_bytes_per_s'] / 1e9:.0f} GB/s"
    threads = f", {row['threads']} threads" if row["device"] == "cpu" and row["threads"] > 1 else ""
    bound = f"errors in {row['checked_in']}, at most {row['error_bound']:g} is allowed"
    return f"{row['device']}{threads}, kernels: {row['kernels']}; limit: {rates}; {bound}"


def _show_scaling(device: torch.device, quick: bool, as_json: bool) -> None:
    from engine.bench import scaling

    output.say("cost by coordinates, steps and meta-batch")
    show = _shown if as_json else dict
    grown = [show(row) for row in scaling.growth(device, quick)]
    output.say("memory by truncation, each in a process of its own")
    kept = [show(row) for row in scaling.memory(device)]
    if as_json:
        return
    table = _columns(SCALING_COLUMNS, texts=1)
    for row in grown:
        sizes = (row["factor"], row["coordinates"], row["truncation"], row["meta_batch"])
        figures = (f"{row['ms']:.1f}", f"{row['ns_per_coordinate_step']:.1f}")
        table.add_row(row["scaling"].replace("_", "-"), *map(str, sizes), *figures)
    peaks = _columns(("truncation", "memory", "whole process"), texts=0)
    for row in kept:
        peaks.add_row(str(row["truncation"]), present.size(row["memory_bytes"]), present.size(row["process_bytes"]))
    output.console().print(table)
    output.console().print(peaks)
