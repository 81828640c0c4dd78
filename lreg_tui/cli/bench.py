"""The speed of this machine: bench."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from engine.base.device import pick_device
from engine.base.errors import LregError, TrainingError
from engine.bench import works
from lreg_tui.cli import output
from lreg_tui.cli.options import AsJson, Device, flag, number, offering, option
from lreg_tui.text import present

if TYPE_CHECKING:
    import torch

TEXTS = ("work", "optimizer", "optimizee")
NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "meta-\nbatch": ("meta_batch", str),
    "ms per\ninner step": ("ms_per_inner_step", lambda ms: present.number(ms, 3)),
    "plain\neager": ("eager_ms_per_inner_step", lambda ms: present.number(ms, 3)),
    "times\nas fast": ("ratio_to_eager", lambda ratio: present.number(ratio, 3)),
    "coordinate-\nsteps/s": ("coordinate_steps_per_s", lambda rate: present.number(rate, 3)),
    "of the\nlimit": ("share_of_limit", lambda share: present.percent(share, 0)),
    "memory": ("memory_bytes", present.size),
    "largest\nerror": ("max_error", lambda error: present.number(error, 2)),
}
"""Of the table, by heading: a key of the bench's lines, and its form."""
ONLY = "One piece of work, such as meta-train/dm/mlp/1; may be given again."
SCALING = "How time and memory grow with coordinates, meta-batch, truncation, unroll and population."
THREADS = "CPU threads. Default: those that torch takes."


def bench(
    only: Annotated[
        list[str] | None,
        option("--only", "WORK/OPTIMIZER/OPTIMIZEE/B", ONLY, offering(lambda: [p.name for p in works.everything()])),
    ] = None,
    everything: Annotated[bool, flag("--all", "Every piece of work that fits this machine.")] = False,
    scaling: Annotated[bool, flag("--scaling", SCALING)] = False,
    quick: Annotated[bool, flag("--quick", "Measure each piece of work once, after a warm-up.")] = False,
    device: Device = None,
    threads: Annotated[int | None, number("--threads", "N", THREADS, minimum=1, maximum=os.cpu_count() or 1)] = None,
    as_json: AsJson = False,
) -> None:
    """How fast this machine meta-trains and evaluates, against plain eager PyTorch in the same run.

    Both do the same work in turn, and their results are compared. Takes about two minutes on two cores.
    """
    pieces = _pieces(only or [], everything, scaling)
    torch_device = pick_device(device or "auto")
    _warn_if_busy(threads)
    if scaling:
        _show_scaling(torch_device, quick, as_json)
        return
    rows: list[dict[str, Any]] = []
    try:
        for row in _measured(pieces, torch_device, quick=quick, by_name=bool(only)):
            rows.append(row)
            if as_json:
                output.emit(row)
    finally:  # those before an interruption are printed all the same
        if not as_json:
            _print_tables(rows)
    _refuse_errors(rows)


def _pieces(only: Sequence[str], everything: bool, scaling: bool) -> list[works.Workload] | None:
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
    pieces: list[works.Workload] | None, device: torch.device, *, quick: bool, by_name: bool
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


def _name(row: dict[str, Any]) -> str:
    return works.Workload(*(row[key] for key in (*TEXTS, "meta_batch"))).name


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
        table = output.lined(TEXTS, tuple(NUMBERS))
        for row in measured:
            table.add_row(
                *(present.text(row[key]) for key in TEXTS), *(form(row[key]) for key, form in NUMBERS.values())
            )
        console.print(table)
        console.print(present.text(_caption(measured[0])))
    for row in rows:
        for key, label in (("skipped", "left out"), ("eager_skipped", "no comparison")):
            if key in row:
                console.print(present.text(f"{_name(row)}: {label}: {row[key]}", "dim"))
        if "ratio_to_adam" in row:
            console.print(present.text(_beside_adam(row), "dim"))


def _beside_adam(row: dict[str, Any]) -> str:
    """What a step takes: time as a multiple of Adam's, memory by parameter."""
    times, most, later = (row[key] for key in ("ratio_to_adam", "bytes_per_parameter", "extra_bytes_per_parameter"))
    memory = "" if most is None else f", at most {most:.0f} bytes a parameter, {later:.0f} beyond the state later on"
    return f"{_name(row)}: {times:.1f} times as long as Adam's step{memory}"


def _caption(row: dict[str, Any]) -> str:
    rates = f"{row['limit_flops_per_s'] / 1e9:.0f} GFLOP/s, {row['limit_bytes_per_s'] / 1e9:.0f} GB/s"
    threads = f", {row['threads']} threads" if row["device"] == "cpu" and row["threads"] > 1 else ""
    bound = f"errors in {row['checked_in']}, at most {row['error_bound']:g} is allowed"
    return f"{row['device']}{threads}, kernels: {row['kernels']}; limit: {rates}; {bound}"


def _show_scaling(device: torch.device, quick: bool, as_json: bool) -> None:
    from engine.bench import scaling

    numbers = ["", "ms", "ns per\ncoordinate-step", "memory", "bytes per\ncoordinate"]
    table = output.lined(["grows"], numbers)
    for row in scaling.growth(device, quick):
        output.say(f"{row['scaling']} {row['value']:,}: {row.get('skipped', 'measured')}")
        if as_json:
            output.emit(row)
        if "skipped" not in row:
            memory, each = row["memory_bytes"], row["bytes_per_coordinate"]
            bytes_each = "" if each is None else f"{each:,.0f}"
            pace = (f"{row['ms']:,.1f}", f"{row['ns_per_coordinate_step']:.1f}")
            table.add_row(row["scaling"], f"{row['value']:,}", *pace, present.size(memory), bytes_each)
    if not as_json:
        output.console().print(table)
