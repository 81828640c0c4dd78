"""The fields of a transfer evaluation's request: what is asked, and the line that each is answered on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Label, Static

from lreg_tui.text import present
from lreg_tui.widgets.line_input import LineInput


@dataclass(frozen=True)
class Field:
    """A line of the form. `empty` stands where nothing is chosen or typed."""

    key: str
    label: str
    help: str
    kind: str = "text"  # text, pick (several of a list), pick one, or toggle
    empty: str = ""
    value: str = ""


FIELDS = (
    Field("runs", "runs", "Whose frozen learned optimizers are evaluated.", "pick", "none: enter picks some"),
    Field(
        "targets",
        "targets",
        "What fresh optimizees are trained on; more than one is fine. `all` is the papers' 3 x 3.",
        "pick",
        "as the first run was meta-trained",
    ),
    Field("steps", "inner steps", "How long each optimizee is trained.", empty="as meta-trained"),
    Field("seeds", "seeds", "Optimizees of every evaluation. Seed k is the same start for everybody.", value="5"),
    Field("radii", "radii", "Sharpness radii, as 0.01, 0.05, 0.1.", empty="as in the preset"),
    Field("scales", "scales", "Factors of the updates, as 0.5, 0.7, 1, 1.4, 2, 2.8; 1 is always there.", value="1"),
    Field("marks", "measure at", "Inner steps at which is measured beside the last, as 50, 100, 200.", empty="a few"),
    Field("checkpoint", "checkpoint", "Which checkpoint of the runs.", "pick one", value="best"),
    Field("untrained", "untrained", "Also the meta-parameters that the runs began with: the control.", "toggle"),
    Field("baselines", "baselines", "Hand-designed optimizers, tuned for every task; kept for later.", "pick", "none"),
    Field(
        "sets",
        "also set",
        "Keys of [task] or [evaluation], as evaluation.examples=500 task.classes=[8,9].",
        empty="nothing",
    ),
    Field("device", "device", "auto, cpu, cuda, cuda:N or mps.", empty="auto"),
)
REMEMBERED = ("steps", "seeds", "radii", "scales", "marks", "device")


class PickedValue(Static, can_focus=True):
    """A value that a key opens a list for, or turns over."""

    HELP_TITLE = "Field"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "press", "choose", tooltip="choose from a list, or turn a yes into a no"),
        Binding("space", "press", "choose", show=False, tooltip="choose from a list, or turn a yes into a no"),
    ]

    @dataclass
    class Pressed(Message):
        value: PickedValue

    def action_press(self) -> None:
        self.post_message(self.Pressed(self))

    def on_click(self) -> None:
        self.action_press()


class FieldRow(Vertical):
    """Label and value side by side, and below them what is wrong with the value."""

    problem: reactive[str] = reactive("", init=False)

    def __init__(self, field: Field) -> None:
        super().__init__(id=f"field-{field.key}")
        self.field = field

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self.field.label, markup=False)
            if self.field.kind == "text":
                yield LineInput(self.field.value, placeholder=self.field.empty)
            else:
                yield PickedValue(markup=False)
        yield Static(classes="problem", markup=False)

    def watch_problem(self) -> None:
        shown = self.query_one(".problem", Static)
        shown.update(present.clean(self.problem, 300))
        self.set_class(bool(self.problem), "-wrong")
