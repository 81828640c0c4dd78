"""Look at runs: runs, show, watch, logs.

A line for each run is as wide as the terminal allows.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.base.errors import LregError, SettingsError, printable
from engine.base.files import open_to_read
from engine.base.metrics import RECORDED, headline, metric
from engine.base.settings import Setting
from engine.base.settings import show as show_value
from engine.base.status import LIVE, Status
from engine.runs.kinds import TRANSFER
from engine.runs.results import run_rows
from engine.runs.store import RunReader, RunStore
from lreg_tui.cli import output
from lreg_tui.cli.follow import Follower, label, ordered, print_results, radius_of, summarize
from lreg_tui.cli.options import (
    AsJson,
    Plugins,
    RunOrJobReference,
    RunsDir,
    choice,
    find_run,
    flag,
    number,
    offering,
    option,
)
from lreg_tui.runs import filters
from lreg_tui.runs.actions import called
from lreg_tui.runs.feed import RunRow, row_of
from lreg_tui.runs.run_columns import column
from lreg_tui.runs.run_files import facts_of
from lreg_tui.text import present
from lreg_tui.text.log_file import with_local_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

USUAL = ("meta_loss", "validation_loss", "adaptive_sharpness", "sharpness")
TESTED = tuple(name for name in RECORDED if metric(name).split == "test")
SORTS = ("id", "name", "state", "progress", "eta", "age", *USUAL[:2], *TESTED, *USUAL[2:])


def checked_key(option: str, key: str, rows: Sequence[RunRow]) -> str:
    """A column of these runs: one of SORTS, a metric, or a setting by the end of its path. Raises SettingsError."""
    names = filters.names_of(rows)
    if key in SORTS or key in names:
        return key
    paths = filters.settings_called(key, names)
    if len(paths) == 1:
        return paths[0]
    _, problem = Setting(option, ("str",), "", "", choices=tuple(paths) or SORTS).check(key)
    raise SettingsError([problem] if problem is not None else [])


def sort_value(row: RunRow, key: str) -> Any:
    """What comes first; what has none, or has diverged, comes last."""
    value = row.id if key == "id" else row.state if key == "state" else column(key).sort(row)
    return (value is None, value)


def as_json_line(row: RunRow, columns: Iterable[str]) -> dict[str, Any]:
    names = (*USUAL, *(name for name in row.latest if metric(name).split == "test"))
    told = {name: getattr(row, name) for name in ("id", "name", "state", "step", "total", "eta_s", "created")}
    extra = {key: row.settings.get(key, row.latest.get(key)) for key in columns}
    return {**told, "figures": {name: row.latest.get(name) for name in names}, **({"columns": extra} if extra else {})}


def _cells(row: RunRow, columns: Sequence[str], metrics: Iterable[str]) -> dict[str, Text]:
    """The cells of a run by column heading, the most telling first."""
    from rich.text import Text

    return {
        **{key: present.text("".join(text for text, _ in column(key).show(row))) for key in columns},
        "state": present.state_text(row.state),
        "done": Text(present.progress(row.step, row.total)),
        "age": Text(present.age(row.created)),
        "ETA": Text(present.duration(row.eta_s) if row.is_live else ""),
        **{present.heading(name): _value(name, row.latest.get(name)) for name in metrics},
        "name": present.text(row.name),
    }


def _value(name: str, value: float | None) -> Text:
    is_lost = value is not None and not math.isfinite(value)
    return present.text(present.metric(name, value), "bold red" if is_lost else "")


def run_table(listed: Sequence[RunRow], columns: Sequence[str], width: int) -> Table:
    """As many columns as fit; the id is never cut, because it is there to be copied."""
    optional = [name for name in ("test_loss", "adaptive_sharpness") if any(name in row.latest for row in listed)]
    heads = dict.fromkeys(name for row in listed if (name := headline(row.latest).name) in row.latest)
    metrics = ("meta_loss", "validation_loss", *optional, *heads, "sharpness")
    ids = [present.text(row.id) for row in listed]
    rows = [_cells(row, columns, metrics) for row in listed]
    left = width - max(len(text) for text in ids)
    table = output.lined(("id",))
    headings = []
    for heading in rows[0]:
        needed = output.GAP + max(*map(len, heading.split("\n")), *(len(row[heading]) for row in rows))
        if needed <= left:
            left -= needed
            headings.append(heading)
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("state", "name") else "right")
    for text, row in zip(ids, rows, strict=True):
        table.add_row(text, *(row[heading] for heading in headings))
    return table


ONLY = f"Only runs in this state: {', '.join(filters.STATE_NAMES)}; may be given again."
FILTER = "Only runs that fit, in the words of the console's filter: 'lo* gam.rho>0.1 optimizer.kind:dm name~^lo-'."
SORT = f"A metric, a setting such as gam.rho, or one of: {', '.join(SORTS)}."
COLUMN = "A setting or a metric to show beside the usual columns; may be given again."
LEAST_ROOM = 24  # columns for what stands behind a name, where they stand below each other
EXIT_CODES = {"finished": 0, "stopped": 130}
POLL_S = 0.3
MOST_LINES = 1_000_000
LARGEST_READ = 2**26  # bytes of a log's end that are looked at at once


def runs(
    state: Annotated[list[str] | None, choice("--state", "STATE", filters.STATE_NAMES, ONLY)] = None,
    filter_text: Annotated[str, option("--filter", "TEXT", FILTER)] = "",
    sort: Annotated[str, option("--sort", "KEY", SORT, offering(lambda: SORTS))] = "id",
    column: Annotated[list[str] | None, option("--column", "KEY", COLUMN)] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List the runs."""
    states = tuple(dict.fromkeys(state or ()))
    store = RunStore(runs_dir)
    rows = [row_of(reader) for reader in store.list()]
    key = checked_key("--sort", sort, rows)
    columns = [checked_key("--column", name, rows) for name in dict.fromkeys(column or ())]
    try:
        fits = filters.compile(filter_text, filters.names_of(rows))
    except filters.FilterError as error:
        raise filters.FilterError(f"--filter: {error}") from None
    listed = sorted(rows, key=lambda row: sort_value(row, key))
    listed = [row for row in listed if (not states or row.state in states) and fits(row)]
    if as_json:
        for row in listed:
            output.emit(as_json_line(row, columns))
        return
    for job in () if states or filter_text else (*store.transfers(), *store.studies()):
        if (status := job.status()).state != "finished":
            done = f"{job.kind.unit} {status.step}/{status.total}" if job.kind is TRANSFER else status.message
            words = ", ".join(filter(None, (status.told, done)))
            output.say(f"{job.kind.name} {job.id}: {words}")
    if listed:
        console = output.console()
        console.print(run_table(listed, columns, console.width))
    else:
        missing = "" if store.root.is_dir() else ": no such folder"
        condition = f" in state {' or '.join(states)}" if states else ""
        condition += f" that match {printable(filter_text)}" if filter_text else ""
        output.say(f"no runs{condition} in {printable(str(store.root))}{missing}")


def show(
    reference: RunOrJobReference, runs_dir: RunsDir = None, plugin: Plugins = None, as_json: AsJson = False
) -> None:
    """Everything about one run."""
    reader = find_run(reference, runs_dir)
    status = reader.status()
    from engine import worker  # it knows every kind of job, and takes a while

    try:
        differences, problem = worker.runner_of(reader).choices(reader), ""
    except LregError as error:
        differences, problem = {}, str(error)
    if as_json:
        output.emit(
            {
                "id": reader.id,
                "name": called(reader),
                "path": str(reader.path),
                "run": reader.facts,
                "status": asdict(status),
                "preset": differences,
                "preset_problem": problem or None,
                "figures": reader.figures(),
                "checkpoints": {name: str(path) for name, path in reader.checkpoints().items()},
                "result": run_rows(reader),
            }
        )
        return
    console = output.console()
    _print_facts(console, reader, status)
    heading = "preset (choices, and what is not the default)" if "edit" in reader.kind.actions else "plan"
    _print_pairs(console, heading, differences, show_value)
    if problem:
        console.print(present.text(problem, "red"))
    radius, latest = radius_of(reader), ordered(reader.figures())
    metrics = {label(name, radius): present.metric(name, value) for name, value in latest.items()}
    _print_pairs(console, "latest figures", metrics, str)
    print_results(run_rows(reader), console, "result")


def _print_facts(console: Console, reader: RunReader, status: Status) -> None:
    created, unit = str(reader.facts.get("created", "")), reader.kind.unit
    if reader.created is not None:
        created = f"{present.local_time(reader.created)} ({present.age(reader.created)} ago)"
    state = status.told + (f" (process {status.pid} on {status.host})" if status.state in LIVE else "")
    pairs = {
        "name": called(reader),
        "state": state,
        "message": status.message,
        "progress": f"{present.progress(status.step, status.total)}, {unit} {status.step} of {status.total}",
        "ETA": present.duration(status.eta_s) if status.eta_s is not None and status.state in LIVE else "",
        "path": reader.path,
        "created": created,
        **facts_of(reader),
    }
    _print_pairs(console, reader.id, {key: value for key, value in pairs.items() if value != ""}, str)


def _print_pairs(console: Console, heading: str, pairs: dict[str, Any], form: Callable[[Any], str]) -> None:
    if not pairs:
        return
    console.print(present.text(heading, "bold"), soft_wrap=True)
    rows = [(present.text("  " + key, "dim"), present.text(form(value))) for key, value in pairs.items()]
    room = console.width - output.GAP - max(len(key) for key, _ in rows)
    if room < min(LEAST_ROOM, max(len(value) for _, value in rows)):
        for key, value in rows:
            console.print(key + "  " + value, overflow="fold")
        return
    table = output.grid()
    for row in rows:
        table.add_row(*row)
    console.print(table)


def watch(reference: RunOrJobReference, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Watch a run until it ends. Ctrl-C leaves it running.

    The exit code is the run's: 0 finished, 130 stopped, 1 failed or crashed.
    """
    reader = find_run(reference, runs_dir)
    try:
        status = Follower(reader, as_json=as_json).follow()
    except KeyboardInterrupt:
        output.say(f"run {reader.id} goes on without you")
        raise typer.Exit(130) from None
    summarize(reader, as_json)
    reader.check_there()
    raise typer.Exit(EXIT_CODES.get(status.state, 1))


def logs(
    reference: RunOrJobReference,
    follow: Annotated[bool, flag("-f --follow", "Wait for more until the run ends.")] = False,
    lines: Annotated[int, number("-n --lines", "N", "How many of the last lines.", minimum=0, maximum=MOST_LINES)] = 50,
    runs_dir: RunsDir = None,
) -> None:
    """What a run's process said, with times by this machine's clock."""
    reader = find_run(reference, runs_dir)
    gained, offset = _gained_lines(reader.log_path, 0)
    _print_log(gained[max(len(gained) - lines, 0) :])
    while follow:
        over = reader.state not in LIVE  # before the last look, so that it sees everything
        gained, offset = _gained_lines(reader.log_path, offset)
        _print_log(gained)
        if over:
            reader.check_there()
            return
        time.sleep(POLL_S)


def _gained_lines(path: Path, offset: int) -> tuple[Sequence[bytes], int]:
    """The whole lines of a log from an offset on, as far as they are looked at, and where they end."""
    try:
        with open_to_read(path, path.parent) as log:
            offset = max(offset, log.seek(0, os.SEEK_END) - LARGEST_READ)
            log.seek(offset)
            *whole, torn = log.read().split(b"\n")
            return whole, log.tell() - len(torn)
    except OSError:
        return [], offset


def _print_log(lines: Sequence[bytes]) -> None:
    if lines:
        text = present.clean_block(b"\n".join(lines).decode(errors="replace"))
        print("\n".join(map(with_local_time, text.split("\n"))), flush=True)
