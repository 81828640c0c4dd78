"""MachinePanel: how busy the machine is; ProcessScreen: what the process of each run takes of it. Every two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Static

from engine.base import machine
from engine.base.machine import Load, ProcessMeter
from engine.runs.store import RunReader
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.text import present
from lreg_tui.text.sheets import Entry, Sheet
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.sheet_view import SheetView
from lreg_tui.widgets.threads import off_the_loop, unless_busy

EVERY_S, SLOW_EVERY_S = 2.0, 6.0
LABEL, LONGEST_BAR = 7, 24  # columns
PARTS = ("label", "bar", "full", "rest")
FULL = 0.9  # share from which something is about to run out
Row = tuple[str, float | None, str]
"""Label, share from 0 to 1, and figures."""


class MachinePanel(Static):
    """GPUs where there are any, processor, memory, disk. Told in brief also when it is not shown."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"machine-panel--{name}" for name in PARTS}
    DEFAULT_CSS = """
    MachinePanel {
        & > .machine-panel--label { color: $text-muted; }
        & > .machine-panel--bar { color: $primary; }
        & > .machine-panel--full { color: $warning; text-style: bold; }
        & > .machine-panel--rest { color: $foreground 20%; }
    }
    """

    def __init__(self, runs: Path, tell: Callable[[str], None], *, slow: bool = False) -> None:
        """`runs`: the folder whose disk counts; `tell` is given it in brief; `slow`: look seldom."""
        super().__init__(markup=False)
        self._tell = tell
        self._folder = runs
        self._every = SLOW_EVERY_S if slow else EVERY_S
        self._rows: list[Row] = []

    def on_mount(self) -> None:
        self.call_after_refresh(self.look)  # the first paint comes first
        self.set_interval(self._every, self.look)

    @work(group="machine")
    @unless_busy
    async def look(self) -> None:
        load = await off_the_loop(lambda: machine.measure(self._folder), "machine")
        rows = list(rows_of(load))
        if rows != self._rows:
            is_other_height = len(rows) != len(self._rows)
            self._rows = rows
            self.refresh(layout=is_other_height)
            self._tell(in_brief(load))

    def render(self) -> Text:
        styles = {name: self.get_component_rich_style(f"machine-panel--{name}") for name in PARTS}
        longest = max((len(figures) for _, _, figures in self._rows), default=0)
        bar = max(0, min(LONGEST_BAR, self.size.width - LABEL - longest - 2))
        text = Text(no_wrap=True)
        for label, share, figures in self._rows:
            full = int(bar * share + 0.5) if share is not None else 0
            is_full = share is not None and share >= FULL
            text.append(label.ljust(LABEL), styles["label"]).append("━" * full, styles["full" if is_full else "bar"])
            text.append("─" * (bar - full) + "  ", styles["rest"]).append(f"{figures}\n")
        return text


def in_brief(load: Load) -> str:
    """One line for narrow screens."""
    gpus = [f"GPU {present.percent(gpu.busy, 0):>3}" for gpu in load.gpus[:2]]
    memory = load.memory_used / load.memory_total if load.memory_total else None
    return "  ".join([*gpus, f"CPU {present.percent(load.cpu, 0):>3}", f"mem {present.percent(memory, 0):>3}"])


def rows_of(load: Load) -> Iterator[Row]:
    """What is shown of a load, rounded, so that it changes seldom."""
    for number, gpu in enumerate(load.gpus):
        heat = f"  {gpu.temperature:.0f}°C" if gpu.temperature is not None else ""
        label = f"GPU {number}" if len(load.gpus) > 1 else "GPU"
        yield label, gpu.busy and round(gpu.busy, 2), f"{present.percent(gpu.busy, 0):>4}{heat}"
        if gpu.memory_used is not None and gpu.memory_total:
            share = gpu.memory_used / gpu.memory_total
            yield "", round(share, 2), f"{_gib(gpu.memory_used)} of {present.size(gpu.memory_total)}"
    yield "CPU", round(load.cpu, 2), f"{present.percent(load.cpu, 0):>4}  {load.cores} cores"
    used = load.memory_used / load.memory_total if load.memory_total else None
    yield "memory", used and round(used, 2), f"{_gib(load.memory_used)} of {present.size(load.memory_total)}"
    if load.disk_total:
        yield "disk", round(1 - load.disk_free / load.disk_total, 2), f"{present.size(load.disk_free)} free"


def _gib(count: float) -> str:
    return f"{count / 2**30:5.1f}"  # of one width, so that bars stand still


class ProcessScreen(Dialog[None]):
    """The processes of runs on this machine, every two seconds."""

    HELP_TITLE = "Processes"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("back", "leave", "close"),
        bind("quit", "leave", show=False),
        bind("processes", "leave", show=False),
    ]
    DEFAULT_CSS = """
    ProcessScreen {
        & > .dialog { width: 84; }
        SheetView { height: auto; min-height: 3; max-height: 100%; background: $panel; }
    }
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__("processes of runs on this machine")
        self.feed = feed
        self._meters: dict[int, ProcessMeter] = {}

    def contents(self) -> Iterable[Widget]:
        yield SheetView("looking …")

    def on_mount(self) -> None:
        self.look()
        self.set_interval(EVERY_S, self.look)

    @work(group="processes", exclusive=True)
    async def look(self) -> None:
        live = [row for row in self.feed.rows if row.is_live]
        lines = await off_the_loop(lambda: self._measure(live), "processes")
        sheets = [Sheet("", "run", list(PROCESS_COLUMNS), lines)] if lines else []
        self.query_one(SheetView).show(sheets, empty="no run is at work here")

    def _measure(self, live: Sequence[RunRow]) -> list[tuple[str, list[Entry]]]:
        """A line for each process that there still is; where several share a run, of the one that writes."""
        import psutil

        gpus, lines = machine.gpu_memory_of_processes(), []
        for row in live:
            status = RunReader(row.path).status()
            if not status.is_of_this_host or status.pid <= 0:
                continue
            try:
                meter = self._meters.get(status.pid) or self._meters.setdefault(status.pid, ProcessMeter(status.pid))
                load = meter.look()
            except psutil.Error:  # it has just ended
                self._meters.pop(status.pid, None)
                continue
            sizes = (load.memory, gpus.get(status.pid), load.read_per_s, load.written_per_s)
            numbers = [present.percent(load.cpu, 0), *map(present.size, sizes), str(status.pid)]
            widths = PROCESS_COLUMNS.values()
            entries = [Entry(number.rjust(width)) for number, width in zip(numbers, widths, strict=True)]
            lines.append((present.clean(row.name, LONGEST_NAME), entries))
        return lines


LONGEST_NAME = 18  # columns of a run's name
PROCESS_COLUMNS = {"CPU": 5, "memory": 9, "GPU mem": 9, "read/s": 9, "written/s": 9, "process": 7}
"""With their least widths, so that they stand still while numbers change."""
