"""Feature networks for few-shot learning: `lreg backbone`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.base import interrupts
from engine.base.control import Control
from engine.base.device import pick_device
from engine.presets.preset import load_preset
from lreg_tui.cli import output
from lreg_tui.cli.follow import note_deaf
from lreg_tui.cli.options import AsJson, DataDir, Device, Plugins, PresetReference, Sets, flag, number
from lreg_tui.text import present

if TYPE_CHECKING:
    from rich.table import Table

    from engine.jobs.backbone_training import BackboneData, Record, TrainingSettings

EPOCHS = "Epochs; the learning rate goes along. Default: 120."


def backbone(
    preset: PresetReference,
    sets: Sets = None,
    epochs: Annotated[int, number("--epochs", "N", EPOCHS, minimum=1, maximum=100_000)] = 120,
    seed: Annotated[int, number("--seed", "N", "Of everything random. Default: 0.", minimum=0, maximum=2**53)] = 0,
    force: Annotated[bool, flag("--force", "Train it anew, even where one is kept or was begun.")] = False,
    device: Device = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Train the feature network that a few-shot preset's [task] names, as a classifier of its training classes.

    It is judged by prototypes on episodes of the validation classes; the best is kept beside the data, or in the user's
    cache where that folder is read-only. Ctrl-C writes a checkpoint and exits with 130; the same command goes on.
    """
    checked = load_preset(preset, sets or ())
    where = pick_device(device or "auto")
    import torch

    from engine.jobs import backbone_training as trainings

    if checked["threads"]:
        torch.set_num_threads(checked["threads"])
    settings = trainings.TrainingSettings(epochs, seed)
    control, rows = Control(), list[tuple[str, Mapping[str, Any]]]()
    note_deaf(control)
    with control.listening():
        for data in trainings.backbones_of(checked, data_dir, where):
            facts = None if force else trainings.kept_facts(data.file)
            if facts is None:
                facts = _train(data, settings, control, force, as_json)
            else:
                output.say(f"{data.file.name}: is kept already; --force trains it anew")
            if facts is None:
                output.say("stopped; the same command goes on")
                raise typer.Exit(interrupts.CODE)
            rows.append((str(data.file.find()), facts))
    for path, facts in rows if as_json else ():
        output.emit({"backbone": path, **facts})
    if not as_json:
        output.console().print(_table(rows))


def _train(
    data: BackboneData, settings: TrainingSettings, control: Control, force: bool, as_json: bool
) -> Mapping[str, Any] | None:
    """Train it and tell of every epoch; what is known of it then, None where it was stopped."""
    from engine.jobs import backbone_training as trainings

    display = output.Display(output.console(stderr=True))
    try:
        for record in trainings.train(data, settings, lambda: control.stop, force=force):
            if as_json:
                output.emit({"event": "epoch", **record})
                continue
            text = _line(record)
            state = str(record["epoch"]) if "validation_accuracy" in record else "training"
            display.show(state, lambda text=text: present.text(text), lambda text=text: text)  # type: ignore[misc]
    finally:
        display.close()
    return None if control.stop else trainings.kept_facts(data.file)


def _line(record: Record) -> str:
    text = f"epoch {record['epoch']}/{record['epochs']}, train loss {present.number(record['train_loss'], 3)}"
    text += f", train accuracy {present.percent(record['train_accuracy'], 1)}"
    if "validation_accuracy" in record:
        text += f", episodes {present.percent(record['validation_accuracy'], 1)} (best: epoch {record['best_epoch']})"
    return text


def _table(rows: list[tuple[str, Mapping[str, Any]]]) -> Table:
    table = output.lined(["backbone"], ["best epoch", "episodes"])
    for path, facts in rows:
        accuracy = present.percent(float(facts["validation_accuracy"]), 1)
        best = f"{facts['best_epoch']} of {facts['settings']['epochs']}"
        table.add_row(present.text(path), best, accuracy)
    return table
