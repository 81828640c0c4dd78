"""LaunchScreen: name, seed and device of a new run, and its start.

It stays until the run's process has the run, or tells why it has not.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Static

from engine.errors import LregError
from engine.preset import Preset, PresetSettings
from engine.runs import RunReader, RunStore
from engine.settings import schema_of
from lreg_tui import launch
from lreg_tui.present import clean, clean_block, setting
from lreg_tui.preset_edit import typed
from lreg_tui.threads import off_the_loop
from lreg_tui.widgets.key_footer import KeyFooter
from lreg_tui.widgets.line_input import LineInput

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,4})?")
DEVICES = "auto, cpu, cuda, cuda:N, mps"
DEVICE_LIMIT_S = 60.0
ASK_DEVICE = """
import sys
sys.path[:] = sys.argv[2:]
from engine.device import pick_device
from engine.errors import LregError
try:
    pick_device(sys.argv[1])
    print("ok")
except LregError as error:
    print(error)
"""
HELP = {
    "name": "what the run is called",
    "seed": "meta-seed: everything random derives from it",
    "device": f"{DEVICES}; auto: the first GPU, else the CPU",
}


class LaunchScreen(ModalScreen[str | None]):
    """Ends with the id of the run that was started, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,ctrl+l,f5", "launch", "launch", key_display="⏎"),
        Binding("down", "app.focus_next", show=False, priority=True),  # keys that follow go where this one leads
        Binding("up", "app.focus_previous", show=False, priority=True),
        Binding("escape", "leave", "back"),
    ]
    DEFAULT_CSS = """
    LaunchScreen {
        align: center middle;
        background: $background 60%;
        & > Vertical { width: 72; max-width: 95%; height: auto; padding: 1 2; background: $panel; }
        #heading { text-style: bold; margin-bottom: 1; }
        #about { color: $foreground 55%; margin-bottom: 1; height: auto; }
        Horizontal { height: 1; }
        Label { width: 10; color: $foreground 55%; }
        Horizontal:focus-within Label { color: $primary; text-style: bold; }
        Input { width: 1fr; border: none; height: 1; padding: 0; background: $surface; }
        #message { margin-top: 1; height: auto; max-height: 6; color: $foreground 55%; }
        #message.-wrong { color: $text-error; }
    }
    """

    def __init__(self, preset: Preset, store: RunStore, data_dir: Path | None = None, note: str = "") -> None:
        super().__init__()
        self.preset = preset
        self.store = store
        self.data_dir = data_dir
        self.note = note
        self.is_starting = False

    def compose(self) -> ComposeResult:
        values = {"name": self.preset.name, "seed": str(self.preset.seed), "device": "auto"}
        with Vertical():
            yield Static("Launch", id="heading", markup=False)
            yield Static(clean_block("\n".join([summary(self.preset), self.note]).strip()), id="about", markup=False)
            for key, value in values.items():
                with Horizontal():
                    yield Label(key, markup=False)
                    suggester = SuggestFromList(["auto", "cpu", "cuda", "cuda:0", "mps"]) if key == "device" else None
                    yield LineInput(clean(value), id=key, suggester=suggester)
            yield Static("", id="message", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        self._judge()

    def problem(self) -> str:
        """What is wrong with what is typed; "" for nothing."""
        for item in schema_of(PresetSettings):
            if item.name in ("name", "seed"):
                found = typed(item, self._value(item.name))[1]
                if found is not None:
                    return str(found)
        name, device = self._value("name"), self._value("device")
        if not name or len(name) > 80 or not name.isprintable():
            return f"name: found {len(name)} characters; allowed: 1 to 80 printable ones"
        return "" if DEVICE.fullmatch(device) else f"device: found {device}; allowed: {DEVICES}"

    def _value(self, key: str) -> str:
        return self.query_one(f"#{key}", Input).value.strip()

    @on(Input.Changed)
    def _judge(self) -> None:
        problem = self.problem()
        focused = self.focused.id if self.focused is not None and self.focused.id in HELP else "name"
        self._say(problem or HELP[str(focused)], bool(problem))

    def on_descendant_focus(self) -> None:
        if not self.is_starting:
            self._judge()

    def _say(self, message: str, is_wrong: bool = False) -> None:
        line = self.query_one("#message", Static)
        line.set_class(is_wrong, "-wrong")
        line.update(clean(message, 600))

    @on(Input.Submitted)
    def action_launch(self) -> None:
        if self.is_starting or self.problem():
            self.app.bell()
            return
        self.is_starting = True
        self._say("starting …  (its process reads the data and loads torch first)")
        self._start(self._value("name"), int(self._value("seed")), self._value("device"))

    @work(group="launch")
    async def _start(self, name: str, seed: int, device: str) -> None:
        try:
            run_id = await off_the_loop(lambda: start(self.preset, self.store, name, seed, device, self.data_dir))
        except LregError as error:
            self.is_starting = False
            self._say(str(error), is_wrong=True)
        else:
            self.dismiss(run_id)

    def action_leave(self) -> None:
        self.dismiss(None)


def start(preset: Preset, store: RunStore, name: str, seed: int, device: str, data_dir: Path | None) -> str:
    """As `lreg run --detach` does it: make the run, start its process, wait until that holds it. Returns the id.

    Raises LregError with the reason. Waits for disks and processes: not for the loop.
    """
    checked = preset.with_values(name=name, seed=seed)
    store.parent_of(checked)
    if device not in ("auto", "cpu"):
        check_device(device)
    created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir)
    launch.start_detached(RunReader(created.path))
    return created.id


def check_device(device: str) -> None:
    """Raise LregError where a device is not on this machine. A child asks torch: it does not come into the console."""
    asked = launch.output_of([sys.executable, "-c", ASK_DEVICE, device, *sys.path], DEVICE_LIMIT_S).strip()
    if asked not in ("", "ok"):  # without an answer the run's own process will tell
        raise LregError(asked)


def summary(preset: Preset) -> str:
    """A preset in one line: what learns what, for how long."""
    tasks = " + ".join(f"{task['dataset']}/{task['optimizee']}" for task in preset.tasks)
    penalties = " + ".join(f"{name} {setting(table['weight'])}" for name, table in preset["penalty"].items())
    meta = preset["meta"]
    steps = meta["inner_steps"]
    length = f"{steps[0]} to {steps[-1]}" if isinstance(steps, tuple) else str(steps)
    return (
        f"{preset['optimizer']['kind']} on {tasks}, {penalties or 'no penalty'}: "
        f"{meta['epochs']} meta-epochs of {length} inner steps, truncation {meta['truncation']}"
    )
