"""MachinePanel: how busy the machine is, every two seconds; ProcessScreen: what the process of each run takes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from engine.base import machine
from engine.base.machine import Gpu, Load, ProcessLoad, ProcessMeter
from engine.runs.store import RunReader
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.text import present
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.threads import off_the_loop

EVERY_S = 2.0
SLOW_EVERY_S = 6.0
LABEL, LONGEST_BAR = 7, 24  # columns
PARTS = ("label", "bar", "full", "rest")
FULL = 0.9  # share from which something is about to run out
Row = tuple[str, float | None, str]
"""Label, share from 0 to 1, and figures."""


class MachinePanel(Static):
    """GPUs where there are any, processor, memory, disk. Tells its screen by `Measured`, also when it is not shown."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"machine-panel--{name}" for name in PARTS}
    DEFAULT_CSS = """
    MachinePanel {
        & > .machine-panel--label { color: $text-muted; }
        & > .machine-panel--bar { color: $primary; }
        & > .machine-panel--full { color: $warning; text-style: bold; }
        & > .machine-panel--rest { color: $foreground 20%; }
    }
    """

    @dataclass
    class Measured(Message):
        load: Load

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, MachinePanel.Measured)

    def __init__(self, runs: Path, *, slow: bool = False) -> None:
        """`runs`: the folder whose disk counts; `slow`: look seldom."""
        super().__init__(markup=False)
        self._folder = runs
        self._every = SLOW_EVERY_S if slow else EVERY_S
        self._is_measuring = False
        self._rows: list[Row] = []

    def on_mount(self) -> None:
        self.call_after_refresh(self.look)  # the first paint comes first
        self.set_interval(self._every, self.look)

    def look(self) -> None:
        if not self._is_measuring:
            self._is_measuring = True
            self._look()

    @work(group="machine")
    async def _look(self) -> None:
        try:
            load = await off_the_loop(lambda: machine.measure(self._folder), "machine")
        finally:
            self._is_measuring = False
        rows = list(rows_of(load))
        if rows != self._rows:
            self._rows = rows
            self.refresh()
            self.post_message(self.Measured(load))

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


def rows_of(load: Load) -> Iterator[Row]:
    """What is shown of a load, rounded, so that it changes seldom."""
    for number, gpu in enumerate(load.gpus):
        yield _gpu_row(f"GPU {number}" if len(load.gpus) > 1 else "GPU", gpu)
        if gpu.memory_used is not None and gpu.memory_total:
            share = gpu.memory_used / gpu.memory_total
            yield "", round(share, 2), f"{_gib(gpu.memory_used)} of {present.size(gpu.memory_total)}"
    yield "CPU", round(load.cpu, 2), f"{present.percent(load.cpu, 0):>4}  {load.cores} cores"
    used = load.memory_used / load.memory_total if load.memory_total else None
    yield "memory", used and round(used, 2), f"{_gib(load.memory_used)} of {present.size(load.memory_total)}"
    if load.disk_total:
        yield "disk", round(1 - load.disk_free / load.disk_total, 2), f"{present.size(load.disk_free)} free"


def _gpu_row(label: str, gpu: Gpu) -> Row:
    heat = f"  {gpu.temperature:.0f}°C" if gpu.temperature is not None else ""
    return label, gpu.busy and round(gpu.busy, 2), f"{present.percent(gpu.busy, 0):>4}{heat}"


def _gib(count: float) -> str:
    return f"{count / 2**30:5.1f}"  # of one width, so that bars stand still


def in_brief(load: Load) -> str:
    """One line for narrow screens."""
    gpus = [f"GPU {present.percent(gpu.busy, 0):>3}" for gpu in load.gpus[:2]]
    memory = load.memory_used / load.memory_total if load.memory_total else None
    return "  ".join([*gpus, f"CPU {present.percent(load.cpu, 0):>3}", f"mem {present.percent(memory, 0):>3}"])


class ProcessScreen(Dialog[None]):
    """The processes of runs on this machine, every two seconds."""

    HELP_TITLE = "Processes"
    BINDINGS: ClassVar[list[BindingType]] = [bind("back", "leave", "close"), bind("processes", "leave", show=False)]
    DEFAULT_CSS = """
    ProcessScreen {
        & > .dialog { width: 84; }
        KeyedTable { height: auto; max-height: 20; background: $panel; }
    }
    """
    COLUMNS = ("run", "CPU", "memory", "GPU mem", "read/s", "written/s", "process")

    def __init__(self, feed: Feed) -> None:
        super().__init__("processes of runs on this machine")
        self.feed = feed
        self._meters: dict[int, ProcessMeter] = {}

    def contents(self) -> Iterable[Widget]:
        yield KeyedTable(cursor_type="row")
        yield Static("looking …", markup=False)

    def on_mount(self) -> None:
        headings = [Text(name.rjust(width)) for name, width in zip(self.COLUMNS[1:], WIDTHS, strict=True)]
        self.query_one(KeyedTable).lay_out([Text(self.COLUMNS[0]), *headings])
        self.look()
        self.set_interval(EVERY_S, self.look)

    @work(group="processes", exclusive=True)
    async def look(self) -> None:
        live = [row for row in self.feed.rows if row.is_live]
        loads = await off_the_loop(lambda: self._measure(live), "processes")
        self.query_one(KeyedTable).show({str(pid): cells for pid, cells in loads.items()})
        self.query_one(Static).update("" if loads else "no run is at work here")

    def _measure(self, live: Sequence[RunRow]) -> Mapping[int, Sequence[Text]]:
        """A line for each process that there still is; where several share a run, of the one that writes."""
        import psutil

        gpus, lines = machine.gpu_memory_of_processes(), {}
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
            lines[status.pid] = process_cells(status.pid, load, gpus.get(status.pid), row.name)
        return lines


NAME = 18  # columns of a run's name
WIDTHS = (5, 9, 9, 9, 9, 7)  # of the numbers, so that columns stand still while these change


def process_cells(pid: int, load: ProcessLoad, gpu_memory: float | None, run: str) -> list[Text]:
    """As ProcessScreen.COLUMNS: what matters most stands where narrow screens show it."""
    sizes = (load.memory, gpu_memory, load.read_per_s, load.written_per_s)
    numbers = [present.percent(load.cpu, 0), *map(present.size, sizes), str(pid)]
    return [
        present.text(present.clean(run, NAME).ljust(NAME)),
        *(Text(number.rjust(width)) for number, width in zip(numbers, WIDTHS, strict=True)),
    ]
