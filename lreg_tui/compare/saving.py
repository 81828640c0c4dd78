"""SavingScreen: a comparison can be copied, and saved as tables or as a figure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.screen import Screen

from engine.base.errors import LregError
from lreg_tui.compare import comparison_files
from lreg_tui.compare.comparing import Found
from lreg_tui.system import launch
from lreg_tui.text import present, sheets
from lreg_tui.text.sheets import Sheet
from lreg_tui.widgets.ending import Ending
from lreg_tui.widgets.threads import off_the_loop

if TYPE_CHECKING:
    from lreg_tui.runs.console_base import ConsoleBase

FIGURES = (".png", ".svg", ".pdf")
ENDINGS = (*comparison_files.FORMS, *FIGURES)


class SavingScreen(Ending, Screen[None]):
    """`found` is the comparison; `plotted` the figures that `lreg plot` draws for what is in sight (none: all)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "copy", tooltip="copy what is in sight as Markdown"),
        Binding("w", "save", "save", tooltip=f"save as {', '.join(ending[1:] for ending in ENDINGS)}"),
    ]
    found: Found | None = None

    @property
    def lreg(self) -> ConsoleBase:
        return self.app  # type: ignore[return-value]

    def shown_sheets(self) -> Sequence[Sheet]:
        """The tables in sight."""
        raise NotImplementedError

    def plotted(self) -> Sequence[str]:
        raise NotImplementedError

    def action_copy(self) -> None:
        """The tables in sight as Markdown; where there are none, the whole comparison."""
        if self.found is None:
            return
        shown = self.shown_sheets()
        parts = [sheets.markdown(sheet) for sheet in shown]
        self.app.copy_to_clipboard("\n".join(parts) or comparison_files.text(self.found.comparison, "markdown"))
        what = f"{len(shown)} table{'s' if len(shown) > 1 else ''}" if shown else "the whole comparison"
        self.app.notify(f"copied {what} as Markdown", markup=False)

    @work(group="save", exclusive=True)
    async def action_save(self) -> None:
        from lreg_tui.widgets.confirm import ConfirmScreen
        from lreg_tui.widgets.prompt import PromptScreen

        found = self.found
        if found is None:
            return
        note = f"by its ending: {', '.join(ENDINGS)}"
        name = await self.app.push_screen_wait(PromptScreen("Save as", "comparison.md", note=note, check=wrong_name))
        if name is None:
            return
        path = target(name)
        question = f"Replace {present.clean(path)}?"
        if os.path.lexists(path) and not await self.app.push_screen_wait(ConfirmScreen(question, yes="replace")):
            return
        try:
            if path.suffix.lower() in FIGURES:
                self.app.notify("drawing", markup=False)
                arguments = self._plot_arguments(found, path)
                await off_the_loop(lambda: draw(arguments))
            else:
                await off_the_loop(lambda: comparison_files.save(found.comparison, path))
        except LregError as error:
            self.app.notify(present.clean(str(error), 300), severity="error", markup=False)
        else:
            self.app.notify(f"saved {present.clean(path)}", markup=False)

    def _plot_arguments(self, found: Found, path: Path) -> list[str]:
        """What `lreg plot` is asked for."""
        wanted, compared = found.wanted, found.comparison
        arguments = ["plot", *map(str, wanted.paths), "-o", str(path)]
        for name in self.plotted():
            arguments += ["--figure", name]
        arguments += ["--task", wanted.task.split(" ")[0]] if wanted.task else []
        arguments += ["--step", str(wanted.step)] if wanted.step is not None else []
        return arguments + (["--radius", compared.radius] if compared.radius else [])


def draw(arguments: Sequence[str]) -> None:
    """Draw a figure with `lreg` in a process of its own. Raises LregError with what it complains about."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        code = launch.start_helper("lreg_tui.cli.app", arguments, said).wait()
        if code:
            lines = said.read_text(errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise LregError(" / ".join(errors or lines[-1:]) or f"lreg plot: exit code {code}")


def wrong_name(name: str) -> str:
    """What is wrong with the name of a file to save to; empty if nothing is."""
    path = target(name)
    if path.suffix.lower() not in ENDINGS:
        return f"found {path.name!r}; allowed: a name that ends in {', '.join(ENDINGS)}"
    if not str(path).isprintable():
        return f"found {str(path)!r}; allowed: a name without control characters"
    if os.path.isdir(path):  # which is never an error: names may be too long, or in folders that are closed to us
        return f"{path}: a folder"
    return "" if os.path.isdir(path.parent) else f"{path.parent}: no such folder"


def target(name: str) -> Path:
    """The file that somebody means by a name."""
    return Path(os.path.expanduser(name.strip()))  # of a user who is not known, as it stands
