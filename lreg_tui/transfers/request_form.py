"""RequestForm: what a transfer evaluation is asked for, a line each. Says what changed; checks nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import DataTable

from engine.evaluation.transfer_plan import BASELINE_NAMES
from engine.runs.reader import CHECKPOINTS
from lreg_tui.text.present import clean
from lreg_tui.transfers.transfer_request import TransferRequest
from lreg_tui.widgets.keyed_table import KeyedTable
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.prompt import PromptScreen

NEXT_KEY = re.compile(r"\s+(?=[\w.]+\s*=)")  # between "task.classes=[8, 9]" and the next key
CHECKPOINT_HELP = {
    "best": "lowest validation loss",
    "last": "end of meta-training",
    "initial": "before any meta-step",
}


@dataclass(frozen=True)
class RequestField:
    """A line of the form. `empty` stands where nothing is chosen or typed."""

    key: str
    label: str
    help: str
    kind: str = "text"  # text, pick (several of a list), pick one, or toggle
    empty: str = ""
    value: str = ""


FIELDS = (
    RequestField("runs", "runs", "Whose frozen learned optimizers are evaluated.", "pick", "none: enter picks some"),
    RequestField(
        "targets",
        "targets",
        "What fresh optimizees are trained on; more than one is fine. `all` is the papers' 3 x 3.",
        "pick",
        "as the first run was meta-trained",
    ),
    RequestField("steps", "inner steps", "How long each optimizee is trained.", empty="as meta-trained"),
    RequestField(
        "seeds", "seeds", "Optimizees of every evaluation. Seed k is the same start for everybody.", value="5"
    ),
    RequestField("radii", "radii", "Sharpness radii, as 0.01, 0.05, 0.1.", empty="as in the preset"),
    RequestField(
        "scales", "scales", "Factors of the updates, as 0.5, 0.7, 1, 1.4, 2, 2.8; 1 is always there.", value="1"
    ),
    RequestField("weight_decays", "weight decays", "Constant, as 0, 1e-4, 1e-3: a grid with every scale.", value="0"),
    RequestField("sam", "SAM", "Radii of SAM around the frozen optimizer, as 0.05: headroom.", empty="without"),
    RequestField(
        "marks", "measure at", "Inner steps at which is measured beside the last, as 50, 100, 200.", empty="a few"
    ),
    RequestField("checkpoint", "checkpoint", "Which checkpoint of the runs.", "pick one"),
    RequestField(
        "untrained", "untrained", "Also the meta-parameters that the runs began with: the control.", "toggle", "no"
    ),
    RequestField(
        "baselines", "baselines", "Hand-designed optimizers, tuned for every task; kept for later.", "pick", "none"
    ),
    RequestField(
        "sets",
        "also set",
        "Keys of [task] or [evaluation], as evaluation.examples=500 task.classes=[8,9].",
        empty="nothing",
    ),
    RequestField("device", "device", "auto, cpu, cuda, cuda:N or mps.", empty="auto"),
)
BY_KEY = {field.key: field for field in FIELDS}
REMEMBERED = ("steps", "seeds", "radii", "scales", "weight_decays", "sam", "marks", "device")


class RequestForm(KeyedTable):
    """The form as a whole. `request`, `run_ids` and `device` are what it says."""

    HELP_TITLE = "Request"
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("open", "select_cursor", "change", "type, choose, or turn over a value"),
    ]
    DEFAULT_CSS = """
    RequestForm { height: auto; max-height: 100%; }
    """

    @dataclass
    class Changed(Message):
        """The form says something else than before."""

    def __init__(self, run_ids: Sequence[str] = (), typed: Mapping[str, object] | None = None) -> None:
        """`typed`: what `typed` was the last time."""
        super().__init__(show_header=False)
        before = {key: value for key, value in (typed or {}).items() if isinstance(value, str) and key in REMEMBERED}
        self.values = {field.key: field.value for field in FIELDS if field.kind == "text"} | before
        self.picked: dict[str, tuple[str, ...]] = {
            "runs": tuple(run_ids),
            "checkpoint": ("best",),
            "untrained": (),
            "baselines": (),
        }
        self.usual_targets: tuple[str, ...] = ()  # what the runs were meta-trained on; others may be picked
        self.first_targets: tuple[str, ...] = ()  # the first of the runs, with all the keys of its preset
        self.choices: dict[str, Sequence[Choice]] = {
            "checkpoint": [Choice(name, help=CHECKPOINT_HELP.get(name, "")) for name in CHECKPOINTS],
            "baselines": [Choice(name) for name in BASELINE_NAMES],
        }
        self.problems: Mapping[str, str] = {}

    def on_mount(self) -> None:
        self.lay_out([Text("field"), Text("value")])
        self._fill()

    # -- what it says ------------------------------------------------------------------------------------------------

    @property
    def run_ids(self) -> tuple[str, ...]:
        return self.picked["runs"]

    @property
    def device(self) -> str:
        return self.typed["device"] or "auto"

    @property
    def targets(self) -> tuple[str, ...]:
        return self.picked.get("targets", self.usual_targets)

    @property
    def request(self) -> TransferRequest:
        values = {key: value.strip() for key, value in self.values.items() if key not in ("device", "sets")}
        return TransferRequest(
            **values | {"steps": values["steps"] or "0"},
            to=() if set(self.targets) == set(self.first_targets) else self.targets,
            checkpoint=self.picked["checkpoint"][0],
            untrained=bool(self.picked["untrained"]),
            baselines=self.picked["baselines"],
            sets=tuple(filter(None, NEXT_KEY.split(self.values["sets"].strip()))),
        )

    @property
    def typed(self) -> dict[str, str]:
        """What is worth being found again the next time."""
        return {key: self.values[key].strip() for key in REMEMBERED}

    # -- what it is told ---------------------------------------------------------------------------------------------

    def offer(self, key: str, choices: Sequence[Choice]) -> None:
        """What a list holds."""
        self.choices[key] = choices
        self._fill()

    def pick(self, key: str, values: Sequence[str]) -> None:
        self.picked[key] = tuple(values)
        self._changed()

    def type(self, key: str, value: str) -> None:
        self.values[key] = value
        self._changed()

    def _changed(self) -> None:
        self._fill()
        self.post_message(self.Changed())

    def complain(self, problems: Mapping[str, str]) -> None:
        """Show what is wrong, field by field, and nothing elsewhere."""
        self.problems = problems
        self._fill()

    def _fill(self) -> None:
        self.show({field.key: [Text(field.label, "dim"), self._value(field)] for field in FIELDS})

    def _chosen(self, key: str) -> tuple[str, ...]:
        return self.targets if key == "targets" else self.picked[key]

    def _value(self, field: RequestField) -> Text:
        if field.kind == "text":
            words = self.values[field.key]
        else:
            names = {choice.value: choice.name for choice in self.choices.get(field.key, ())}
            words = ", ".join(names.get(value, value) for value in self._chosen(field.key))
        line = Text(clean(words or field.empty, 200), "" if words else "dim")
        if field.key == "targets" and words and not self.request.to:
            line.append("  as meta-trained", "dim")
        problem = self.problems.get(field.key)
        return line.append(f"  ✗ {clean(problem, 300)}", "bold red") if problem else line

    # -- keys --------------------------------------------------------------------------------------------------------

    @on(DataTable.RowSelected)
    def _change(self, event: DataTable.RowSelected) -> None:
        event.stop()
        field = BY_KEY[self.key]
        if field.kind == "toggle":
            self.pick(field.key, () if self.picked[field.key] else ("yes",))
        elif field.kind == "text":
            before = self.values[field.key]
            prompt = PromptScreen(field.label, before, note=field.help, changed=lambda text: self.type(field.key, text))
            self.app.push_screen(prompt, lambda text: self.type(field.key, before if text is None else text))
        else:
            choices, several = self.choices.get(field.key, ()), field.kind == "pick"
            asked_list = PickList(field.label, choices, self._chosen(field.key), several=several)
            self.app.push_screen(asked_list, lambda values: None if values is None else self.pick(field.key, values))
