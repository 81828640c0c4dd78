"""ActingScreen: a screen on which runs can be steered. It asks before what cannot be taken back, and tells what came.

class RunScreen(ActingScreen):
    def subjects(self) -> Sequence[RunRow]:  # the runs that a key is for
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType

from engine.base.errors import LregError
from engine.runs.kinds import RUN, TRANSFER
from engine.runs.store import RunReader
from lreg_tui.runs import actions
from lreg_tui.runs.console_base import ConsoleScreen
from lreg_tui.runs.feed import RunRow
from lreg_tui.runs.groups import seeds_name
from lreg_tui.system.keys import key_of
from lreg_tui.text.present import clean, count
from lreg_tui.widgets.dialog import PromptScreen
from lreg_tui.widgets.keys import bind
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop

LONGEST_SHOWN = 40
MOST_COMPARED = 6
UNTIL = f"{key_of('undo')} brings it back until the console ends; then it is gone for good."
FITTING: dict[str, Callable[[RunRow], bool]] = {  # which runs an action is for; its key is there only if there is one
    "stop_run": lambda row: row.is_live,
    "pause_run": lambda row: row.state == "running",
    "continue_run": lambda row: row.state == "paused",
    "resume_run": lambda row: row.state in actions.RESUMABLE and "resume" in row.kind.actions,
    "delete_run": lambda row: not row.is_live,
    "transfer": lambda row: "transfer" in row.kind.actions,
    "compare": lambda row: "compare" in row.kind.actions,
    **dict.fromkeys(("rename_run", "tag_run", "pin_run", "copy_id"), lambda row: True),
}


class ActingScreen(ConsoleScreen):
    """Keys for stop, pause, continue, resume, rename, tag, pin, delete, copy id, transfer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("stop", "stop_run", tooltip="finish the truncation, write a checkpoint, and end"),
        bind("pause", "pause_run", "pause", "pause the run: the same key lets it go on"),
        bind("pause", "continue_run", "continue", "let the paused run go on"),
        bind("resume", "resume_run", tooltip="go on from the last checkpoint"),
        bind("transfer", "transfer", tooltip="evaluate the learned optimizer on other tasks"),
        bind("rename", "rename_run", tooltip="give it another name; the id stays"),
        bind("tag", "tag_run", tooltip="add tags, or take them away"),
        bind("pin", "pin_run", tooltip="keep it at the top, or no longer"),
        bind("copy", "copy_id", "copy id", "copy the id to the clipboard"),
        bind("delete", "delete_run", tooltip="delete the run folder; asks first"),
        bind("undo", "undo"),
    ]

    STOPPING: ClassVar[tuple[str, str]] = (
        "Stop {}?",
        f"A checkpoint is written first; {key_of('resume')} goes on from it.",
    )
    CHANGING: ClassVar[Sequence[str]] = (*FITTING, "undo")  # actions that are for some runs, or at some times only
    _could: tuple[bool | None, ...] = ()  # which of them there were when that was last looked at

    def subjects(self) -> Sequence[RunRow]:
        """The runs that an action is for; for what goes with one run only, the first."""
        raise NotImplementedError

    def note_subjects(self) -> None:
        """To be called when the subjects or their states may have changed: the footer shows what can be done now."""
        can = tuple(self.check_action(action, ()) for action in self.CHANGING)
        if can != self._could:
            self._could = can
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "undo":
            return not self.lreg.trash.is_empty
        return self._can(action) if action in FITTING else True

    def _can(self, action: str) -> bool:
        return any(map(FITTING[action], self.subjects()))

    def after_deleting(self, run_ids: Sequence[str]) -> None:
        """Called when runs have been deleted."""

    def after_undoing(self, run_ids: Sequence[str]) -> None:
        """Called when deleted runs are back."""

    # -- keys --------------------------------------------------------------------------------------------------------

    @work(group="ask", exclusive=True)
    async def action_stop_run(self) -> None:
        rows, (question, note) = self._fitting("stop_run"), self.STOPPING
        if rows and await self.agree(question.format(named(rows)), "stop", note):
            self.act("stop", partial(actions.ask, purpose="stop"), rows)

    def action_pause_run(self) -> None:
        self.act("pause", partial(actions.ask, purpose="pause"), self._fitting("pause_run"))

    def action_continue_run(self) -> None:
        self.act("continue", partial(actions.ask, purpose="continue"), self._fitting("continue_run"))

    def action_resume_run(self) -> None:
        rows = self._fitting("resume_run")
        if rows:
            self.act("resume", self.resume, rows, "resuming")

    def resume(self, path: Path) -> str:
        """Go on with one of them: see `actions`."""
        return actions.resume(path, self.lreg.data_dir)

    @work(group="ask", exclusive=True)
    async def action_delete_run(self) -> None:
        rows = self._fitting("delete_run")
        if not rows:
            return
        note = next((row for row in rows if row.kind is RUN), rows[0]).kind.deleting
        if await self.agree(f"Delete {named(rows)}?", "delete", f"{note} {UNTIL}"):
            trash = self.lreg.trash
            number = trash.begin()
            ids = [row.id for row in rows]
            self.act("delete", lambda path: trash.put(path, number), rows, then=lambda: self.after_deleting(ids))

    @work(group="undo", exclusive=True)
    async def action_undo(self) -> None:
        undo = self.lreg.trash.undo
        try:
            back = await off_the_loop(lambda: {path.name: actions.called(RunReader(path)) for path in undo()}, "undo")
        except LregError as error:
            self.tell(str(error), "error")
            return
        if back:
            self.tell(f"as before: {listed(list(back.values()))}")
            self.after_undoing(list(back))
        self.lreg.feed.look_now()

    @work(group="ask", exclusive=True)
    async def action_rename_run(self) -> None:
        rows, others = self.subjects()[:1], len(self.subjects()) - 1
        if not rows:
            return
        note = f"of {rows[0].id}" + f"; {count(others, 'other')} marked, which keep theirs" * (others > 0)
        name = await self.app.push_screen_wait(PromptScreen("Name", rows[0].name, note=note, check=actions.check_name))
        if name is not None and name != rows[0].name:
            self._change("rename", lambda path: actions.rename(path, name), rows)

    @work(group="ask", exclusive=True)
    async def action_tag_run(self) -> None:
        rows = self.subjects()
        if not rows:
            return
        tags = ", ".join(dict.fromkeys(tag for row in rows for tag in row.tags))
        note = f"{named(rows)}: {tags or 'no tags yet'}. Words are added, -words taken away."
        check = partial(actions.tags_after, ())
        words = await self.app.push_screen_wait(PromptScreen("Tags", note=note, check=check))
        if words:
            self._change("tag", lambda path: actions.tag(path, words), rows)

    def action_pin_run(self) -> None:
        rows = self.subjects()
        pinned = not all(row.pinned for row in rows)
        self.act("pin", lambda path: actions.pin(path, pinned), rows, quietly=True)

    def action_copy_id(self) -> None:
        ids = [clean(row.id) for row in self.subjects()]
        if ids:
            self.app.copy_to_clipboard(" ".join(ids))
            self.tell(f"copied {', '.join(ids)}")

    def action_transfer(self) -> None:
        ids = [row.id for row in self._fitting("transfer")]
        if ids:
            self.lreg.open_transfer(ids)

    def action_compare(self) -> None:
        self.compare_with_others()

    @work(group="ask", exclusive=True)
    async def compare_with_others(self) -> None:
        """Compare the subjects with runs that are picked now."""
        subjects = [row for row in self.subjects() if "compare" in row.kind.actions]
        if not subjects:
            return
        ids, tasks = arms_of(subjects), {row.task for row in subjects}
        rest = [row for row in reversed(self.lreg.feed.rows) if "compare" in row.kind.actions and row not in subjects]
        repeats = {row.id: [row] for row in rest if (row.arm or row.id) in ids}  # of the subjects, one by one
        others = repeats | arms_of(row for row in rest if row.id not in repeats)
        if not others:
            self.tell("there is no other run to compare with", "warning")
            return
        keys = sorted(others, key=lambda key: others[key][0].task not in tasks)
        choices = [Choice(key, arm_name(others[key]), telling(others[key][0])) for key in keys]
        title = f"compare {listed(list(map(arm_name, ids.values())))} with"
        picked = await self.app.push_screen_wait(PickList(title, choices, several=True, never_none=True))
        if picked and len(ids) + len(picked) > MOST_COMPARED:
            self.tell(f"found {len(ids) + len(picked)} arms to compare; allowed: {MOST_COMPARED} at most", "warning")
        elif picked:
            self.lreg.open_compare([row.id for row in (*subjects, *(run for key in picked for run in others[key]))])

    # -- how -----------------------------------------------------------------------------------------------------------

    def act(
        self,
        name: str,
        action: Callable[[Path], str],
        rows: Sequence[RunRow],
        begins: str = "",
        then: Callable[[], None] | None = None,
        quietly: bool = False,
    ) -> None:
        """Do something to runs, one after the other, and tell what came of it; also when this screen is left meanwhile.

        What is under way already, by `name`, is not begun again. `begins`: what is told first, of what takes long.
        """
        under_way = self.lreg.under_way
        due = [row for row in rows if (name, row.path) not in under_way]
        under_way |= {(name, row.path) for row in due}
        if due and begins:
            self.tell(f"{begins} {named(due)} …")

        async def act_on_each() -> None:
            done, outcome = [], ""
            for row in due:
                try:
                    outcome = await off_the_loop(partial(action, row.path), "act")
                except LregError as error:
                    self.tell(str(error), "error")
                else:
                    done.append(row)
                finally:
                    under_way.discard((name, row.path))
            self.lreg.feed.look_now()
            if done and not quietly:
                self.tell(outcome if len(done) == 1 else f"{name}: {named(done)}")
            if then is not None and done:
                then()

        if due:
            self.lreg.run_worker(act_on_each(), group="act")

    def _change(self, name: str, change: Callable[[Path], str], rows: Sequence[RunRow]) -> None:
        """Change the notes of runs so that it can be undone."""
        trash = self.lreg.trash
        step = trash.begin()
        self.act(name, lambda path: trash.change(path, step, lambda: change(path)), rows)

    def _fitting(self, action: str) -> list[RunRow]:
        return [row for row in self.subjects() if FITTING[action](row)]


ACTIONS = {binding.action: binding for binding in ActingScreen.BINDINGS if isinstance(binding, Binding)}


def arms_of(rows: Iterable[RunRow]) -> dict[str, list[RunRow]]:
    """Runs by arm: repeats with other seeds together."""
    arms: dict[str, list[RunRow]] = {}
    for row in rows:
        arms.setdefault(row.arm or row.id, []).append(row)
    return arms


def arm_name(rows: Sequence[RunRow]) -> str:
    return rows[0].name if len(rows) == 1 else seeds_name(rows)


def telling(row: RunRow) -> str:
    """A few words on what a run is, for a list."""
    return " ".join(filter(None, (row.state, row.task, row.optimizer, *row.penalties, row.id)))


def named(rows: Sequence[RunRow]) -> str:
    names = [clean(row.name, LONGEST_SHOWN) + f" {clean(row.id[-4:])}" * (row.kind is TRANSFER) for row in rows]
    return listed(names)


def listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} runs ({', '.join(names[:3])}, …)"
