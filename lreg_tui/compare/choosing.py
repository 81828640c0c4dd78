"""ChoosingScreen: on which task, against which arm, at which inner step and radius runs are compared.

Comparing takes a few tenths of a second, and never holds up a key press.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType

from engine.base.errors import LregError
from lreg_tui.compare import comparing
from lreg_tui.compare.comparing import Wanted
from lreg_tui.compare.saving import SavingScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop

EVERY = "every task"
RADIUS_KEYS = Binding.Group("radius", compact=True)


class ChoosingScreen(SavingScreen):
    """`wanted` is what is asked for, `found` what it came to, `problem` why it came to nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "pick_task", "task", tooltip="compare on another task"),
        Binding("r", "pick_reference", "reference", tooltip="the arm that the others are compared with"),
        Binding("i", "pick_step", "step", tooltip="compare at another inner step"),
        Binding("left_square_bracket", "change_radius(-1)", "smaller radius", key_display="[", group=RADIUS_KEYS),
        Binding("right_square_bracket", "change_radius(1)", "larger radius", key_display="]", group=RADIUS_KEYS),
        Binding("T", "transfer", "transfer", tooltip="start transfer evaluations of these runs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted(())
        self.problem = ""
        self.radius: str | None = None
        self._due = self._looking = False

    @property
    def rows(self) -> Sequence[RunRow]:
        """The compared runs."""
        raise NotImplementedError

    def show(self) -> None:
        """Called when there is something new."""
        raise NotImplementedError

    def want(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, **changes)
        self.compare()

    @work(group="compare")
    async def compare(self) -> None:
        """Compute what is wanted unless it is there. One at a time: what is asked for meanwhile comes next."""
        self._due = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._due:
                self._due = False
                if await self._look(self.wanted):
                    self.show()
        finally:
            self._looking = False

    async def _look(self, wanted: Wanted) -> bool:
        """Whether there is something new. What cannot be done leaves the comparison as it was, and says why."""
        if not wanted.paths:
            self.problem = "none of these runs is there"
            return True
        if self.found is not None and self.found.wanted == wanted:
            if await off_the_loop(lambda: comparing.stamp_of(wanted.paths)) == self.found.stamp:
                return False
        try:
            self.found = (await off_the_loop(lambda: comparing.look(wanted))).at_radius(self.radius)
            self.problem = ""
        except LregError as error:
            self.problem = str(error).splitlines()[0]
            if self.found is None and (
                wanted.task or wanted.step is not None
            ):  # asked for by whoever opened the screen
                self.wanted, self._due = replace(self.wanted, task=None, step=None), True
            elif self.found is not None and wanted == self.wanted:
                self.wanted = self.found.wanted
        return True

    # -- keys --------------------------------------------------------------------------------------------------------

    def action_pick_task(self) -> None:
        """The task to compare on; where nothing was evaluated yet, the screen that does it."""
        if self.found is None or not self.found.tasks:
            self.action_transfer()
            return
        choices = [Choice(EVERY), *(Choice(task) for task in self.found.tasks)]
        self._pick("task", choices, self.wanted.task or EVERY, self._take_task)

    def _take_task(self, task: str) -> None:
        self.want(task=None if task == EVERY else task, step=None)

    def action_pick_reference(self) -> None:
        if self.found is None:
            return
        compared = self.found.comparison
        choices = [Choice(str(index), arm.label) for index, arm in enumerate(compared.arms)]
        paths = [arm.runs[0].reader.path for arm in compared.arms]
        self._pick(
            "reference arm",
            choices,
            str(compared.arms.index(compared.reference)),
            lambda index: self.want(reference=paths[int(index)]),
        )

    def action_pick_step(self) -> None:
        if self.found is None or not self.found.steps:
            return
        choices = [Choice("", "the last in common"), *(Choice(str(step)) for step in self.found.steps)]
        now = "" if self.wanted.step is None else str(self.wanted.step)
        self._pick(
            "inner step",
            choices,
            now,
            lambda step: self.want(step=int(step) if step else None),
        )

    def _pick(self, title: str, choices: list[Choice], now: str, take: Callable[[str], object]) -> None:
        def taken(values: tuple[str, ...] | None) -> None:
            if values:
                take(values[0])

        self.app.push_screen(PickList(title, choices, (now,)), taken)

    def action_change_radius(self, by: int) -> None:
        if self.found is None or self.found.comparison.radius is None:
            return
        radii = self.found.comparison.radii
        index = radii.index(self.found.comparison.radius) + by
        self.radius = radii[max(0, min(index, len(radii) - 1))]
        self.found = self.found.at_radius(self.radius)
        self.show()

    def action_transfer(self) -> None:
        self.lreg.open_transfer([row.id for row in self.rows])
