"""RequestForm: what a transfer evaluation is asked for, a line each. Says what changed; checks nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import DescendantFocus
from textual.message import Message
from textual.widgets import Input

from engine.evaluation.transfer_plan import BASELINE_NAMES
from engine.runs.reader import CHECKPOINTS
from lreg_tui.runs.feed import RunRow
from lreg_tui.text import present
from lreg_tui.transfers.request_fields import FIELDS, REMEMBERED, Field, FieldRow, PickedValue
from lreg_tui.transfers.transfer_request import TransferRequest
from lreg_tui.widgets.pick_list import Choice, PickList

NEXT_KEY = re.compile(r"\s+(?=[\w.]+\s*=)")  # between "task.classes=[8, 9]" and the next key
CHECKPOINT_HELP = {
    "best": "lowest validation loss",
    "last": "end of meta-training",
    "initial": "before any meta-step",
}


class RequestForm(VerticalScroll, can_focus=False):
    """The form as a whole. `request`, `run_ids` and `device` are what it says."""

    DEFAULT_CSS = """
    RequestForm { height: auto; padding: 0 1; scrollbar-size-vertical: 1; }
    RequestForm FieldRow { height: auto; }
    RequestForm FieldRow > Horizontal { height: 1; }
    RequestForm Label { width: 14; color: $text-muted; }
    RequestForm FieldRow.-current Label { color: $primary; text-style: bold; }
    RequestForm Input { width: 1fr; height: 1; border: none; padding: 0; background: $surface; }
    RequestForm Input:focus { background: $panel; }
    RequestForm PickedValue {
        width: 1fr; height: 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }
    RequestForm PickedValue:focus { background: $panel; text-style: bold; }
    RequestForm .problem { display: none; height: auto; padding-left: 14; color: $error; }
    RequestForm .-wrong .problem { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "leap(-1)", "up", show=False, priority=True),  # keys that follow go where this one leads
        Binding("down", "leap(1)", "down", show=False, priority=True),
    ]

    @dataclass
    class Changed(Message):
        """The form says something else than before."""

        form: RequestForm

    @dataclass
    class Explained(Message):
        """The field under the cursor, in a sentence."""

        help: str

    def __init__(
        self, run_ids: Sequence[str] = (), targets: Sequence[str] = (), typed: Mapping[str, object] | None = None
    ) -> None:
        """`typed`: what `typed` was the last time."""
        super().__init__()
        self.before = {key: value for key, value in (typed or {}).items() if isinstance(value, str)}
        self.picked: dict[str, tuple[str, ...]] = {
            "runs": tuple(run_ids),
            "targets": tuple(targets),
            "checkpoint": ("best",),
            "untrained": (),
            "baselines": (),
        }
        self.own_targets: tuple[str, ...] = ()  # what the first run was meta-trained on, with all its keys
        self.choices: dict[str, list[Choice]] = {
            "runs": [],
            "targets": [],
            "checkpoint": [Choice(name, help=CHECKPOINT_HELP.get(name, "")) for name in CHECKPOINTS],
            "baselines": [Choice(name) for name in BASELINE_NAMES],
        }

    def compose(self) -> ComposeResult:
        for field in FIELDS:
            value = self.before.get(field.key, field.value) if field.key in REMEMBERED else field.value
            yield FieldRow(replace(field, value=value))

    def on_mount(self) -> None:
        self._write_picked()

    # -- what it says ------------------------------------------------------------------------------------------------

    @property
    def run_ids(self) -> tuple[str, ...]:
        return self.picked["runs"]

    @property
    def device(self) -> str:
        return self._typed("device") or "auto"

    @property
    def request(self) -> TransferRequest:
        return TransferRequest(
            to=() if set(self.picked["targets"]) == set(self.own_targets) else self.picked["targets"],
            steps=self._typed("steps") or "0",
            seeds=self._typed("seeds"),
            marks=self._typed("marks"),
            radii=self._typed("radii"),
            scales=self._typed("scales"),
            checkpoint=self.picked["checkpoint"][0],
            untrained=bool(self.picked["untrained"]),
            baselines=self.picked["baselines"],
            sets=tuple(filter(None, NEXT_KEY.split(self._typed("sets")))),
        )

    @property
    def typed(self) -> dict[str, str]:
        """What is worth being found again the next time."""
        return {key: self._typed(key) for key in REMEMBERED}

    def _typed(self, key: str) -> str:
        return self._row(key).query_one(Input).value.strip()

    def _row(self, key: str) -> FieldRow:
        return self.query_one(f"#field-{key}", FieldRow)

    @property
    def is_whole(self) -> bool:
        """False while the console is closing: fields go before the form does."""
        return len(self.query(FieldRow)) == len(FIELDS)

    # -- what it is told ---------------------------------------------------------------------------------------------

    def offer(self, key: str, choices: Sequence[Choice]) -> None:
        """What a list holds."""
        self.choices[key] = list(choices)
        self._write_picked()

    def pick(self, key: str, values: Sequence[str]) -> None:
        if tuple(values) != self.picked[key]:
            self.picked[key] = tuple(values)
            self._write_picked()
            self.post_message(self.Changed(self))

    def fill(self, run_ids: Sequence[str], own_targets: Sequence[str], request: TransferRequest, device: str) -> None:
        """Say what a request says. `own_targets`: what its first run was meta-trained on."""
        self.own_targets = tuple(own_targets)
        self.picked |= {
            "runs": tuple(run_ids),
            "targets": request.to or self.own_targets,
            "checkpoint": (request.checkpoint,),
            "untrained": ("yes",) if request.untrained else (),
            "baselines": request.baselines,
        }
        values = {"steps": request.steps, "seeds": request.seeds, "radii": request.radii, "scales": request.scales}
        values |= {"marks": request.marks, "sets": " ".join(request.sets), "device": device}
        for key, value in values.items():
            self._row(key).query_one(Input).value = value
        self._write_picked()
        self.post_message(self.Changed(self))

    def complain(self, problems: Mapping[str, str]) -> None:
        """Show what is wrong, field by field, and nothing elsewhere."""
        for field in FIELDS:
            self._row(field.key).problem = problems.get(field.key, "")

    def _write_picked(self) -> None:
        for field in FIELDS:
            if field.kind != "text":
                self._row(field.key).query_one(PickedValue).update(self._shown(field))

    def _shown(self, field: Field) -> Text:
        if field.kind == "toggle":
            return Text("yes" if self.picked[field.key] else "no")
        names = {choice.value: choice.name for choice in self.choices[field.key]}
        listed = ", ".join(names.get(value, present.clean(value, 80)) for value in self.picked[field.key])
        shown = Text(listed or field.empty, "" if listed else "dim", no_wrap=True, overflow="ellipsis")
        if field.key == "targets" and listed and not self.request.to:
            shown.append("  as meta-trained", "dim")
        return shown.append("  ▾", "dim")

    # -- keys --------------------------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self))

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        current = next((node for node in event.widget.ancestors_with_self if isinstance(node, FieldRow)), None)
        for row in self.query(FieldRow):
            row.set_class(row is current, "-current")
        if current is not None:
            self.post_message(self.Explained(current.field.help))

    def action_leap(self, by: int) -> None:
        focusable = list(self.query("Input, PickedValue"))
        current = next((index for index, widget in enumerate(focusable) if widget is self.screen.focused), 0)
        self.screen.set_focus(focusable[(current + by) % len(focusable)])  # now: the next key is for it

    def on_picked_value_pressed(self, event: PickedValue.Pressed) -> None:
        event.stop()
        row = next(node for node in event.value.ancestors if isinstance(node, FieldRow))
        field = row.field
        if field.kind == "toggle":
            self.pick(field.key, () if self.picked[field.key] else ("yes",))
            return

        def take(values: tuple[str, ...] | None) -> None:
            if values is not None:
                self.pick(field.key, values)

        several = field.kind == "pick"
        self.app.push_screen(
            PickList(field.label, self.choices[field.key], self.picked[field.key], several=several), take
        )


def own_targets(rows: Sequence[RunRow]) -> tuple[str, ...]:
    """What runs were meta-trained on, by name."""
    return tuple(dict.fromkeys(name for row in rows for name in row.task.split("+") if name))
