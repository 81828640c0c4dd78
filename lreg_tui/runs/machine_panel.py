"""MachinePanel: how busy the machine is, every two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.message import Message
from textual.widgets import Static

from engine.base import machine
from engine.base.machine import Gpu, Load
from lreg_tui.text import present
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

        @property
        def in_brief(self) -> str:
            """One line for narrow screens."""
            load, share = self.load, present.percent
            gpus = [f"GPU {share(gpu.busy, 0):>3}" for gpu in load.gpus[:2]]
            memory = load.memory_used / load.memory_total if load.memory_total else None
            return "  ".join([*gpus, f"CPU {share(load.cpu, 0):>3}", f"mem {share(memory, 0):>3}"])

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
