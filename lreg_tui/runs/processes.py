"""ProcessScreen: what the process of each run takes of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Static

from engine.base import machine
from engine.base.machine import ProcessLoad, ProcessMeter
from engine.runs.store import RunReader
from lreg_tui.runs.feed import Feed, RunRow
from lreg_tui.text import present
from lreg_tui.widgets.dialog import Dialog
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.threads import off_the_loop

EVERY_S = 2.0


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
