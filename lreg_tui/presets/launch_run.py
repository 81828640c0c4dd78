"""LaunchScreen: name, seed and device of a new run, and its start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from engine.base.device import ALLOWED, NAMES
from engine.base.settings import schema_of
from engine.presets.catalog import USUAL_ESTIMATOR, estimator_label, member_name, named_members, task_label
from engine.presets.preset import Preset, PresetSettings
from engine.runs.store import RunReader, RunStore
from engine.study.schedule import inputs
from lreg_tui.presets.preset_edit import typed
from lreg_tui.system import launch
from lreg_tui.text.present import clean, clean_block, setting
from lreg_tui.widgets.launching import Field, LaunchingScreen


class LaunchScreen(LaunchingScreen[str]):
    """Ends with the id of the run that was started, or None."""

    HEADING = "Launch"
    WAITING = "its process reads the data and loads torch first"

    def __init__(self, preset: Preset, store: RunStore, data_dir: Path | None = None, note: str = "") -> None:
        fields = (
            Field("name", clean(preset.name), "what the run is called"),
            Field("seed", str(preset.seed), "meta-seed: everything random derives from it"),
            Field(
                "device",
                "auto",
                f"{ALLOWED}; auto: the first GPU, else the CPU",
                ("auto", "cpu", "cuda", "cuda:0", "mps"),
            ),
        )
        super().__init__(clean_block(f"{summary(preset)}\n{note}".strip()), fields)
        self.preset = preset
        self.store = store
        self.data_dir = data_dir

    def problem(self) -> str:
        items = {item.name: item for item in schema_of(PresetSettings)}
        for key in ("name", "seed"):
            if (problem := typed(items[key], self.value(key))[1]) is not None:
                return str(problem)
        name, device = self.value("name"), self.value("device")
        if not name or len(name) > 80 or not name.isprintable():
            return f"name: found {len(name)} characters; allowed: 1 to 80 printable ones"
        return "" if NAMES.fullmatch(device) else f"device: found {device}; allowed: {ALLOWED}"

    def start(self, values: Mapping[str, str]) -> str:
        return start(self.preset, self.store, values["name"], int(values["seed"]), values["device"], self.data_dir)


def start(preset: Preset, store: RunStore, name: str, seed: int, device: str, data_dir: Path | None) -> str:
    """As `lreg run --detach` does it: make the run, start its process, wait until that holds it. Returns the id.

    Raises LregError with the reason. Waits for disks and processes: not for the loop.
    """
    checked = preset.with_values(name=name, seed=seed)
    inputs.check_run(checked.tasks, device, data_dir, checked["optimizer"], store.parent_of(checked))
    created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir)
    launch.start_detached(RunReader(created.path), data_dir=data_dir)
    return created.id


def summary(preset: Preset) -> str:
    """A preset in one line: what learns what, for how long."""
    tasks = " + ".join(map(task_label, preset.tasks))
    members = named_members(preset.values)
    penalties = " + ".join(f"{member_name(path)} {setting(table['weight'])}" for path, table in members.items())
    meta = preset["meta"]
    estimator = f", {name}" if (name := estimator_label(meta)) != USUAL_ESTIMATOR else ""
    estimator += f" of {meta['pairs']} pairs" if "pairs" in meta else ""
    steps = meta["inner_steps"]
    length = f"{steps[0]} to {steps[-1]}" if isinstance(steps, tuple) else str(steps)
    return (
        f"{preset['optimizer']['kind']} on {tasks}, {penalties or 'no penalty'}{estimator}: "
        f"{meta['epochs']} meta-epochs of {length} inner steps, truncation {meta['truncation']}"
    )
