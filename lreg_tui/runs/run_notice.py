"""RunNotice: what there is to say about one run: why it failed with its last words, or what it is at."""

from __future__ import annotations

from rich.text import Text
from textual import work
from textual.widgets import Static

from engine.base.status import STOPPING
from lreg_tui.runs.feed import RunRow
from lreg_tui.system.keys import key_of
from lreg_tui.text import present
from lreg_tui.text.log_file import last_lines, with_short_time
from lreg_tui.widgets.threads import off_the_loop

LAST_WORDS = 3  # log lines of a run that has crashed or failed
DEAD = ("crashed", "failed")
LONGEST_NAME = 24  # so that a narrow line has room for the rest; the whole name is beside it


class RunNotice(Static):
    """Shows nothing about a run that is well and says nothing."""

    DEFAULT_CSS = """
    RunNotice {
        height: auto; max-height: 5; display: none; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
        color: $text-muted;
        &.-dead { background: $error 12%; color: $text; border-left: thick $error; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", markup=False, id=id)
        self._row: RunRow | None = None
        self._facts: tuple[object, ...] = ()

    def show_run(self, row: RunRow | None) -> None:
        dead = row is not None and row.state in DEAD
        facts = () if row is None else (row.id, row.state, row.message, row.step if dead else 0)
        if facts == self._facts:
            return
        self._row, self._facts = row, facts
        self.set_class(dead, "-dead")
        waiting = f"{row.kind.ending}: " if row is not None and row.state == STOPPING else ""
        self._say("" if row is None or dead else waiting + present.clean(row.message, 160))
        if row is not None and dead:
            self._say_why(row)

    @work(group="notice", exclusive=True)
    async def _say_why(self, row: RunRow) -> None:
        lines = await off_the_loop(lambda: last_lines(row.path / "log.txt", LAST_WORDS), "notice")
        if row is self._row:
            self._say(self._epitaph(row, lines))

    def _epitaph(self, row: RunRow, lines: tuple[str, ...]) -> Text:
        at = f" at {row.kind.unit} {row.step} of {row.total}" if row.total else ""
        text = Text(f"{present.clean(row.name, LONGEST_NAME)} {row.state}{at}", "bold")
        text.append(f"  {key_of('resume')} resumes it", "not bold")  # before what may be long
        if row.message and row.state == "failed":
            text.append(f"  {present.clean(row.message, 200)}")
        for line in lines:
            text.append(f"\n{with_short_time(line)}", "not bold dim")
        return text

    def _say(self, text: Text | str) -> None:
        if text or self.display:  # else there is nothing, as before
            self.display = bool(text)
            self.update(text)
