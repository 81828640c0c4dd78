"""How large the console is, how fast it answers and how much it sends: `python tests/console_speed.py [--json]`.

A script, not a test: figures depend on the machine and its load, which it prints. It starts the real console on a
terminal of its own (a pty), with one run of very many records and three runs that other processes write.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from console_runs import FLOAT32, make_long, make_run, make_saved, three_live
from console_terminal import Terminal, console

LIMITS = {  # what the figures are to stay below
    "first paint, s": 0.5,
    "torch in the process": 1.0,
    "dashboard with three live runs, KB/s": 20.0,
    "curves of a live run, KB/s": 20.0,
    "dashboard with three live runs, slow link, KB/s": 5.0,
    "curves of a live run, slow link, KB/s": 5.0,
    "nothing changes, bytes": 1.0,
    "slowest answer while reading, ms": 100.0,
    "slowest answer, ms": 100.0,
    "memory, MB": 200.0,
    "memory on a time axis, MB": 200.0,
}
SLOW_S = 0.1  # an answer that is named
ESCAPE = "\x1b"
CHART_KEYS = ("+", "\x1b[D", "l", ",", ".", "0", "x", "x", "x", "f", "0", "l", "~", "~", "~", "~", "~")
TABLE_KEYS = (" ", " ", "o", "O", "-\x1b[H", "\x1b[F", "\x1b[H", "?", ESCAPE)  # not measured: what may change nothing


def first_paint(folder: Path, count: int = 1000) -> dict[str, float]:
    """With many saved runs: until the screen stands, until the runs are in it."""
    runs = folder / "runs"
    make_saved(runs, count)
    painted, listed = [], []
    for _ in range(5):
        with console(runs) as terminal:
            painted.append(terminal.until("help"))
            listed.append(terminal.until(" saved "))
            time.sleep(1.0)
            torch = terminal.has_torch()
    return {
        "first paint, s": statistics.median(painted),
        f"{count:,} runs listed, s": statistics.median(listed),
        "torch in the process": torch,
    }


def many_runs(folder: Path, count: int = 1000) -> dict[str, float]:
    """CPU that a key takes with many saved runs, at 160x48; opening and help also the first time."""
    runs, found = folder / "runs", {}
    make_saved(runs, count)
    with console(runs, 160, 48) as terminal:
        terminal.until(" saved ")
        time.sleep(6.0)
        began = terminal.cpu
        time.sleep(5.0)
        idle = (terminal.cpu - began) / 5.0

        def cost(key: str, times: int, seconds: float) -> float:
            used = terminal.cpu
            for _ in range(times):
                terminal.press(key)
                time.sleep(seconds)
            return 1000 * max(0.0, (terminal.cpu - used) / times - idle * seconds)

        found["idle, CPU ms a second"] = 1000 * idle
        found["a step of the cursor, CPU ms"] = cost("\x1b[B", 40, 0.5)
        for key, word in (("?", "help"), ("\r", "opening a run")):
            for when in ("first", "second"):
                found[f"{word}, {when} time, CPU ms"] = cost(key, 1, 3.0)
                terminal.press(ESCAPE)
                time.sleep(2.0)
    return found


def long_run(folder: Path, records: int, metrics: int, narrow: Sequence[str] = FLOAT32) -> dict[str, float]:
    """Memory and answers while a long run is read, and afterwards while three runs are written."""
    runs = folder / "runs"
    path = make_run(runs, "long")
    make_long(path, records, metrics, narrow)
    with three_live(runs), console(runs, 160, 48) as terminal:
        terminal.until(" long ")
        found = {"metrics.jsonl, MB": size(path) / 1e6, "memory before, MB": terminal.memory}
        found |= while_reading(terminal, size(path))
        time.sleep(3.0)
        found |= {"memory, MB": terminal.memory, "peak memory, MB": terminal.peak}
        after = answers(terminal, TABLE_KEYS, times(3 * len(TABLE_KEYS)))
        terminal.press("\t")
        time.sleep(1.0)
        after += answers(terminal, CHART_KEYS, times(4 * len(CHART_KEYS)))
        found |= summary(after, "")
        found["95% of answers, ms"] = 1000 * statistics.quantiles([taken for _, taken in after], n=20)[-1]
        terminal.press("0xx")
        time.sleep(3.0)
        found["memory on a time axis, MB"] = terminal.memory
    return found


def while_reading(terminal: Terminal, whole: int) -> dict[str, float]:
    """Mark all runs, so that they are read, and press keys until that is done."""
    whole += terminal.bytes_read
    began, used = time.perf_counter(), terminal.cpu
    terminal.press("*")
    time.sleep(0.3)
    reading = answers(terminal, TABLE_KEYS, lambda: terminal.bytes_read < 0.9 * whole)
    while terminal.bytes_read < 0.9 * whole or terminal.reads_much():
        time.sleep(0.05)
    return {
        **summary(reading, " while reading"),
        "reading, s": time.perf_counter() - began,
        "reading, CPU s": terminal.cpu - used,
    }


def size(run: Path) -> int:
    return (run / "metrics.jsonl").stat().st_size


def times(count: int) -> Callable[[], bool]:
    """True so often."""
    left = iter(range(count))
    return lambda: next(left, None) is not None


def summary(answers: Sequence[tuple[str, float]], when: str) -> dict[str, float]:
    """The escape key by itself: Textual waits a tenth of a second for what it may be the beginning of."""
    usual = [1000 * taken for key, taken in answers if key != ESCAPE] or [0.0]
    escape = [1000 * taken for key, taken in answers if key == ESCAPE] or [0.0]
    return {
        f"slowest answer{when}, ms": max(usual),
        f"median answer{when}, ms": statistics.median(usual),
        f"slowest answer to escape{when}, ms": max(escape),
    }


def answers(terminal: Terminal, keys: Sequence[str], goes_on: Callable[[], bool]) -> list[tuple[str, float]]:
    """Key after key, pressed at odd times, and the seconds to its answer."""
    found: list[tuple[str, float]] = []
    chance, order = random.Random(2), itertools.cycle(keys)
    while goes_on():
        key = next(order)
        if key.startswith("-"):
            terminal.press(key[1:])
            time.sleep(1.0)
            continue
        found.append((key, terminal.answer(key)))
        if found[-1][1] > SLOW_S:
            print(f"  {key!r} took {1000 * found[-1][1]:.0f} ms", file=sys.stderr)
        time.sleep(chance.uniform(0.2, 0.5))
    return found


def link(folder: Path, seconds: float) -> dict[str, float]:
    """What is sent at 80x24 while three runs are written, and when nothing happens."""
    runs, found = folder / "runs", {}
    with three_live(runs):
        for options, word in (((), ""), (("--slow-link",), ", slow link")):
            with console(runs, 80, 24, *options) as terminal:
                terminal.until(" live ")
                terminal.press("*")
                time.sleep(8.0)
                found[f"dashboard with three live runs{word}, KB/s"] = terminal.sent(seconds) / seconds / 1e3
                terminal.press("\r")
                time.sleep(8.0)
                found[f"curves of a live run{word}, KB/s"] = terminal.sent(seconds) / seconds / 1e3
    path = make_run(runs, "done")
    make_long(path, 1000, 10)
    with console(runs, 80, 24) as terminal:
        terminal.until(" done ")
        terminal.press("\r")
        time.sleep(5.0)
        found["nothing changes, bytes"] = terminal.sent(seconds)
    with console(runs, 80, 24) as terminal:
        terminal.until(" done ")
        time.sleep(5.0)
        found["nothing changes but the load of the machine, bytes/s"] = terminal.sent(seconds) / seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as JSON in place of a table")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the long run")
    parser.add_argument("--metrics", type=int, nargs="+", default=[1, 10], help="of the long run, 1 to 10")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long bytes are counted")
    parser.add_argument("--only", choices=("paint", "many", "long", "link"), help="one part of it")
    parser.add_argument("--wide", action="store_true", help="a long run all of whose values need 64 bits")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {"machine": {"load": os.getloadavg()[0], "cores": os.cpu_count() or 0}}
    for name, measure in parts(given):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder))
        if not given.json:
            show(name, found[name])
    if given.json:
        print(json.dumps(found, indent=1))


def parts(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[Path], dict[str, float]]]]:
    if given.only in (None, "paint"):
        yield "start", first_paint
    if given.only in (None, "many"):
        yield "1,000 runs", many_runs
    if given.only in (None, "link"):
        yield "link", partial(link, seconds=given.seconds)
    for metrics in given.metrics if given.only in (None, "long") else ():
        name = f"{given.records:,} records of {metrics} metrics" + ", all of 64 bits" * given.wide
        narrow = () if given.wide else FLOAT32
        yield name, partial(long_run, records=given.records, metrics=metrics, narrow=narrow)


def show(name: str, figures: dict[str, float]) -> None:
    print(name)
    for label, value in figures.items():
        limit = LIMITS.get(label)
        verdict = "" if limit is None else f"  {'ok' if value < limit else 'TOO MUCH'}, below {limit:g}"
        print(f"  {label:52} {value:10.2f}{verdict}", flush=True)


if __name__ == "__main__":
    main()
