"""The preset editor, driven by keys: form and TOML are one text, wrong values are told, nothing is lost unasked."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static
from tui import driving, hosting

import lreg_tui
from engine.base.errors import RunError
from engine.jobs import spawn
from engine.jobs.job_runner import check_inputs
from engine.presets import catalog
from engine.presets.preset import from_mapping, shipped
from engine.runs.store import RunReader, RunStore
from engine.study.schedule import inputs
from lreg_tui.app.help import HelpScreen
from lreg_tui.presets import preset_editor
from lreg_tui.presets.picking import PickPresetScreen, summary
from lreg_tui.presets.preset_editor import PresetEditorScreen
from lreg_tui.presets.problem_list import DifferenceScreen
from lreg_tui.widgets.dialog import ConfirmScreen, LaunchingScreen, PromptScreen

MINE = """\
# my own preset
extends = "quickstart" # the base

[meta]
epochs = 3 # few
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    catalog.load()

    def check(tasks: Any, device: str, data_dir: Any, optimizer: Any, parent: Any) -> None:
        check_inputs(tasks, device, data_dir, optimizer=optimizer, start=parent and parent.path)

    monkeypatch.setattr(preset_editor, "TYPING_PAUSE_S", 0.01)
    monkeypatch.setattr(inputs, "check_run", check)  # data and devices are looked at without a process
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE)
    yield


class Editor:
    """The editor on the screen, and its keys."""

    def __init__(self, pilot: Pilot[Any]) -> None:
        self.pilot = pilot
        self.app: Any = pilot.app

    @property
    def screen(self) -> PresetEditorScreen:
        found = [screen for screen in self.app.screen_stack if isinstance(screen, PresetEditorScreen)]
        return found[-1]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def checked(self) -> None:
        """Until the text as it stands has been checked."""
        await driving.until(
            self.pilot,
            lambda: self.screen.checked is not None and self.screen.checked.text == self.screen.area.text,
        )
        await driving.calm(self.pilot)

    async def shown(self, kind: type) -> Any:
        await driving.until(self.pilot, lambda: isinstance(self.app.screen, kind))
        await driving.calm(self.pilot)
        return self.app.screen

    async def go_to(self, path: str) -> None:
        self.screen.form.highlight(path)
        await driving.calm(self.pilot)
        assert self.screen.form.current == path

    async def type(self, path: str, value: str) -> None:
        """Type a value for a setting, in the form, and leave it there."""
        await self.go_to(path)
        await self.press("enter")
        self.pilot.app.focused.value = value  # type: ignore[union-attr]
        await driving.calm(self.pilot)

    @property
    def about(self) -> str:
        return str(self.screen.query_one("#about", Static).content)

    @property
    def problems(self) -> list[str]:
        listed = self.screen.query_one("#problems", OptionList)
        return [str(option.prompt) for option in listed.options]

    @property
    def told(self) -> list[str]:
        return [note.message for note in self.app._notifications]


@asynccontextmanager
async def editing(folder: Path, preset: str = "mine.toml", size: tuple[int, int] = (80, 24)) -> Any:
    app = hosting.Host(RunStore(folder / "runs"), folder)
    async with app.run_test(size=size):
        pilot = driving.Quick(app)
        editor = Editor(pilot)
        app.open_editor(preset)
        if preset:
            await driving.until(pilot, lambda: editor.app.screen_stack[-1].query("#form"))
            await editor.checked()
        yield editor


def test_a_value_typed_in_the_form_changes_the_text_and_no_comment(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("meta.epochs", "12")
            await editor.press("enter")
            assert editor.screen.area.text == MINE.replace("epochs = 3", "epochs = 12")
            await editor.checked()
            assert "unsaved" in str(editor.screen.query_one("#title", Static).content)
            await editor.press("ctrl+s")
            await driving.until(editor.pilot, lambda: (tmp_path / "mine.toml").read_text() != MINE)
            assert (tmp_path / "mine.toml").read_text() == MINE.replace("epochs = 3", "epochs = 12")

    driving.run(go())


def test_a_wrong_value_is_told_while_it_is_typed_and_is_not_taken(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("meta.epochs", "ten")
            assert 'found "ten"; allowed: an integer >= 0' in str(editor.app.screen.query_one("#note", Static).content)
            await editor.press("enter")
            assert isinstance(editor.app.focused, Input)  # still typing
            await editor.press("escape")
            assert editor.screen.area.text == MINE

    driving.run(go())


def test_what_is_wrong_in_the_text_is_listed_marks_the_form_and_stops_the_launch(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            editor.screen.area.take(MINE.replace("epochs = 3", 'epoch = 3\ntruncation = "x"'))
            await editor.checked()
            assert len(editor.problems) == 2
            assert "meta.truncation" in editor.problems[0] and "an integer >= 1" in editor.problems[0]
            assert "meta.epoch" in editor.problems[1] and "did you mean epochs?" in editor.problems[1]
            assert editor.screen.area.wrong_lines == {4, 5}
            await editor.press("ctrl+l")
            await driving.until(editor.pilot, lambda: "not launched: the preset has problems" in editor.told)
            assert isinstance(editor.app.screen, PresetEditorScreen)
            assert editor.screen.form.current == "meta.truncation"
            await editor.press("f8")  # on to the unknown key, which the form does not have: to its table
            assert editor.screen.form.current == "meta.epochs"
            assert not (tmp_path / "runs").exists()

    driving.run(go())


def test_text_that_is_no_toml_leaves_the_form_and_says_where(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            editor.screen.area.take(MINE + "[penalty\n")
            await editor.checked()
            assert "line 6" in editor.problems[0] and editor.screen.area.wrong_lines == {5}
            await editor.type("meta.epochs", "12")
            await editor.press("enter")
            assert editor.screen.area.text == MINE + "[penalty\n"
            assert any("no valid TOML" in note for note in editor.told)

    driving.run(go())


def test_typing_toml_changes_the_form(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("ctrl+t", "ctrl+home", "s", "e", "e", "d", "=", "9", "enter")
            await editor.checked()
            assert editor.screen.area.text.startswith("seed=9\n# my own preset")
            await editor.press("ctrl+t")
            await editor.go_to("seed")
            assert "set here" in editor.about

    driving.run(go())


def test_what_is_set_here_to_its_default_is_told_from_what_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text("[meta]\nepochs = 100\ntruncation = 10\n")

    async def go() -> None:
        async with editing(tmp_path, "plain.toml") as editor:
            lines = {line.identity: line.content.plain for line in editor.screen.form.lines}
            assert "● set here, even to the default" in lines["table:"]
            assert lines["meta.epochs"].startswith("● ") and "the default" in lines["meta.epochs"]
            assert "default 20" in lines["meta.truncation"] and lines["meta.clip"].startswith("  ")
            await editor.go_to("meta.epochs")
            assert "set here, to the default; del takes it out again" in editor.about

    driving.run(go())


def test_inherited_values_say_from_where_and_come_back(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.go_to("meta.truncation")
            assert "from quickstart" in editor.about
            await editor.go_to("meta.epochs")
            await editor.press("delete")
            await editor.checked()
            assert editor.screen.area.text == MINE.replace("epochs = 3 # few\n", "")
            await editor.go_to("meta.epochs")
            assert "from quickstart" in editor.about

    driving.run(go())


def test_penalties_are_added_from_a_list_and_taken_away(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("a")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press("s", "a", "m", "enter")
            await editor.checked()
            assert editor.screen.area.text == MINE + "\n[penalty.sam]\n"
            await editor.go_to("table:penalty.sam")
            await editor.press("delete")
            await editor.checked()
            assert editor.screen.area.text == MINE
            assert editor.screen.form.current == "add:penalty"  # near where it was, not at the top
            await editor.go_to("table:penalty.gsam")
            await editor.press("delete")
            assert any("inherited from quickstart" in note for note in editor.told)
            assert editor.screen.area.text == MINE

    driving.run(go())


def test_terms_are_added_as_penalties_are_and_ask_for_an_estimator_that_takes_them(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("a")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press(*"sharpness term", "enter")
            await editor.checked()
            assert editor.screen.area.text == MINE + "\n[objective.terms.sharpness]\n"
            assert editor.screen.form.current == "table:objective.terms.sharpness" and "this term" in editor.about
            assert "objective.terms.sharpness" in editor.problems[0] and "meta.estimator" in editor.problems[0]
            await editor.go_to("add:objective.terms")
            assert "adaptive_sharpness" in editor.about and " sharpness," not in editor.about
            await editor.go_to("meta.estimator")
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press("e", "s", "enter")
            await editor.checked()
            assert not editor.screen.checked.problems
            await editor.type("meta.pairs", "2")
            await editor.press("enter")
            await editor.checked()
            assert 'estimator = "es"\npairs = 2\n' in editor.screen.area.text
            await editor.go_to("table:objective.terms.sharpness")
            await editor.press("delete")
            await editor.checked()
            assert "sharpness" not in editor.screen.area.text

    driving.run(go())


def test_an_edit_in_the_form_leaves_a_former_preset_in_todays_form(tmp_path: Path) -> None:
    former = '[meta]\nestimator = "es"\nepochs = 3\n\n[objective]\nloss = "last" # at the end\nbatches = 5\n\n'
    former += "# flat\n[objective.sharpness]\nat_loss = 0.5\n"
    today = (
        former.replace('"last"', '"last_many"').replace("[objective.s", "[objective.terms.s").replace("at_loss", "at")
    )

    async def go() -> None:
        (tmp_path / "mine.toml").write_text(former)
        async with editing(tmp_path) as editor:
            assert not editor.screen.checked.problems and editor.screen.area.text == former
            await editor.type("objective.terms.sharpness.at", "0.25")
            await editor.press("enter")
            await editor.checked()
            assert editor.screen.area.text == today.replace("0.5", "0.25")
            await editor.go_to("objective.loss")
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press(*"minimum", "enter")
            await editor.checked()
            assert 'loss = "minimum" # at the end\n\n# flat\n' in editor.screen.area.text
            await editor.go_to("table:objective.terms.sharpness")
            await editor.press("delete")
            await editor.checked()
            assert "sharpness" not in editor.screen.area.text and not editor.screen.checked.problems

    driving.run(go())


def test_what_is_about_to_run_is_told_in_one_line() -> None:
    values = {
        "meta": {"estimator": "es", "pairs": 4},
        "penalty": {"sam": {}},
        "objective": {"terms": {"sharpness": {}}},
    }
    assert "sam 1 + sharpness 1, es of 4 pairs: 100 meta-epochs" in summary(from_mapping(values))
    assert "no penalty: 100 meta-epochs" in summary(from_mapping({}))


def test_a_member_is_chosen_from_a_list_and_its_settings_appear(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.go_to("optimizer.kind")
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press("r", "n", "n", "enter")
            await editor.checked()
            assert editor.screen.area.text == MINE + '\n[optimizer]\nkind = "rnnprop"\n'
            await editor.go_to("optimizer.beta1")

    driving.run(go())


def test_several_activations_are_marked_and_drawn_from_and_one_is_picked_by_enter_alone(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            for keys, raw in (
                (("space", "down", "space", "enter"), '["sigmoid", "relu"]'),
                (("space", "down", "space", "down", "space", "enter"), '"tanh"'),
            ):
                await editor.go_to("task.activation")
                await editor.press("enter")
                await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
                await editor.press(*keys)
                await editor.checked()
                assert editor.screen.area.text == MINE + f"\n[task]\nactivation = {raw}\n"
            await editor.go_to("task.activation")
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press("r", "e", "l", "enter")
            await editor.checked()
            assert editor.screen.area.text == MINE + '\n[task]\nactivation = "relu"\n'

    driving.run(go())


def test_the_filter_narrows_the_form_down(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("slash", "c", "l", "i", "p", "enter")
            found = [line.identity for line in editor.screen.form.lines]
            assert found == ["table:meta", "meta.clip", "meta.clip_at"]
            assert editor.screen.form.current == "meta.clip"
            await editor.press("slash", "escape", "equals_sign")
            assert "meta.epochs" in [line.identity for line in editor.screen.form.lines]
            assert "meta.truncation" not in [line.identity for line in editor.screen.form.lines]

    driving.run(go())


def test_what_is_added_to_a_form_that_is_narrowed_down_comes_into_view(tmp_path: Path) -> None:
    """Else the next key, such as the one that takes it out again, would be for the setting that was in view before."""

    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("slash", *"epochs", "enter", "a")
            await driving.until(editor.pilot, lambda: editor.app.screen is not editor.screen)
            await editor.press("g", "a", "m", "enter")
            await editor.checked()
            assert editor.screen.form.current == "table:penalty.gam"
            await editor.press("delete")
            await editor.checked()
            assert editor.screen.area.text == MINE

    driving.run(go())


def test_the_difference_shows_settings_and_lines(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("meta.epochs", "12")
            await editor.press("enter", "ctrl+r")
            await editor.shown(DifferenceScreen)
            shown = str(editor.app.screen.query_one(Static).content)
            assert "meta.epochs  3 → 12" in shown
            assert "-epochs = 3 # few" in shown and "+epochs = 12 # few" in shown
            await editor.press("escape")

    driving.run(go())


def test_a_shipped_preset_is_saved_under_another_name_and_never_overwritten(tmp_path: Path) -> None:
    original = shipped()["lo-sam"].read_bytes()

    async def go() -> None:
        async with editing(tmp_path, "lo-sam") as editor:
            await editor.type("seed", "5")
            await editor.press("enter", "ctrl+s")
            prompt = await editor.shown(PromptScreen)
            field = prompt.query_one(Input)
            assert field.value == "lo-sam-2.toml"
            field.value = str(shipped()["lo-sam"])
            await editor.press("enter")
            assert "a shipped preset" in str(prompt.query_one("#note", Static).content)
            field.value = "mine.toml"
            await editor.press("enter")
            question = await editor.shown(ConfirmScreen)
            assert "mine.toml is there already" in question.heading
            await editor.press("n")
            await editor.press("ctrl+o")
            await editor.shown(PromptScreen)
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: (tmp_path / "lo-sam-2.toml").exists())
            assert "seed = 5" in (tmp_path / "lo-sam-2.toml").read_text()

    driving.run(go())
    assert (tmp_path / "mine.toml").read_text() == MINE
    assert shipped()["lo-sam"].read_bytes() == original


def test_a_file_that_somebody_else_changed_is_not_overwritten_unasked(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            (tmp_path / "mine.toml").write_text("seed = 77\n")
            await editor.type("seed", "5")
            await editor.press("enter", "ctrl+s")
            question = await editor.shown(ConfirmScreen)
            assert "has changed on the disk" in question.heading
            await editor.press("n")

    driving.run(go())
    assert (tmp_path / "mine.toml").read_text() == "seed = 77\n"


def test_leaving_or_quitting_with_unsaved_edits_asks(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("seed", "5")
            await editor.press("enter", "escape")
            await editor.shown(ConfirmScreen)
            await editor.press("n")
            assert editor.app.screen is editor.screen
            await editor.press("q")
            await editor.shown(ConfirmScreen)
            await editor.press("n")
            assert editor.app.is_running and editor.app.screen is editor.screen
            await editor.press("escape", "y")
            await driving.until(
                editor.pilot,
                lambda: not any(isinstance(screen, PresetEditorScreen) for screen in editor.app.screen_stack),
            )

    driving.run(go())


def test_leaving_without_edits_does_not_ask(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path, "lo-sam") as editor:
            await editor.press("escape")
            await driving.until(editor.pilot, lambda: not isinstance(editor.app.screen, PresetEditorScreen))

    driving.run(go())


def test_launching_makes_a_real_run_and_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunReader] = []
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **_: started.append(reader))

    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("meta.epochs", "12")
            await editor.press("enter", "ctrl+l")
            dialog = await editor.shown(LaunchingScreen)
            dialog.query_one("#name", Input).value = "first"
            dialog.query_one("#seed", Input).value = "-1"
            await editor.press("enter")
            assert "seed: found -1" in str(dialog.query_one("#message", Static).content)
            dialog.query_one("#seed", Input).value = "7"
            dialog.query_one("#device", Input).value = "cpu"
            await editor.press("enter")
            await driving.until(editor.pilot, lambda: any("started" in note for note in editor.told))
            assert len(editor.app.screen_stack) == 1

    driving.run(go())
    (reader,) = started
    assert [found.path for found in RunStore(tmp_path / "runs").list()] == [reader.path]
    preset = reader.preset()
    assert (preset.name, preset.seed, preset["meta"]["epochs"]) == ("first", 7, 12)
    assert (reader.facts["device"], reader.state) == ("cpu", "queued")
    assert (tmp_path / "mine.toml").read_text() == MINE


def test_a_launch_that_fails_says_why_and_keeps_the_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(reader: RunReader, **_: object) -> None:
        raise RunError("--device: cuda:7 is not on this machine; there is: cpu")

    monkeypatch.setattr(spawn, "start_detached", fail)

    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.type("seed", "5")
            await editor.press("enter", "ctrl+l")
            dialog = await editor.shown(LaunchingScreen)
            await editor.press("enter")
            line = dialog.query_one("#message", Static)
            await driving.until(editor.pilot, lambda: "cuda:7 is not on this machine" in str(line.content))
            await editor.press("escape")
            assert editor.app.screen is editor.screen and "seed = 5" in editor.screen.area.text

    driving.run(go())


def test_a_run_that_has_started_waits_for_the_help_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_start = threading.Event()
    monkeypatch.setattr(spawn, "start_detached", lambda reader, **_: may_start.wait(240))

    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("ctrl+l")
            dialog = await editor.shown(LaunchingScreen)
            await editor.press("enter", "f1")
            await editor.shown(HelpScreen)
            may_start.set()
            await driving.until(editor.pilot, lambda: dialog._result is not None)
            assert isinstance(editor.app.screen, HelpScreen)
            await editor.press("escape")
            await driving.until(editor.pilot, lambda: not isinstance(editor.app.screen, (HelpScreen, LaunchingScreen)))
            assert dialog not in editor.app.screen_stack

    driving.run(go())


def test_a_device_that_is_not_there_is_told_before_a_run_is_made(tmp_path: Path) -> None:
    async def go() -> None:
        async with editing(tmp_path) as editor:
            await editor.press("ctrl+l")
            dialog = await editor.shown(LaunchingScreen)
            dialog.query_one("#device", Input).value = "cuda:7"
            await editor.press("enter")
            line = dialog.query_one("#message", Static)
            await driving.until(editor.pilot, lambda: "cuda:7 is not on this machine" in str(line.content))

    driving.run(go())
    assert not (tmp_path / "runs").exists()


def test_presets_to_begin_with_are_the_shipped_ones_those_of_the_folder_and_those_of_runs(tmp_path: Path) -> None:
    driving.make_run(tmp_path / "runs", "older")

    async def go() -> None:
        async with editing(tmp_path, "") as editor:
            picker = await editor.shown(PickPresetScreen)
            assert {offer.group for offer in picker.offers.values()} >= {"shipped", "in this folder"}
            await driving.until(editor.pilot, lambda: picker.current)
            assert picker.current.name == "quickstart"
            await editor.press("m", "i", "n", "e", ".")
            assert picker.current.name == "mine.toml"
            await editor.press("enter")
            await editor.shown(PresetEditorScreen)
            await editor.checked()
            assert editor.screen.area.text == MINE

    driving.run(go())


def test_hostile_text_is_shown_plainly(tmp_path: Path) -> None:
    text = 'name = "[red]\\u001b[31mx"\ndescription = "[/] [link=http://x]\u202eevil"\n\x1b]0;title\x07\n'
    (tmp_path / "evil.toml").write_text(text)

    async def go() -> None:
        async with editing(tmp_path, "evil.toml", (120, 40)) as editor:
            assert editor.screen.area.text == text
            await editor.press("ctrl+t")
            svg = editor.app.export_screenshot()
            assert "\x1b" not in svg and "\u202e" not in svg and "[link" in svg.replace("&#160;", " ")
            editor.screen.area.take(text.split("\x1b]")[0])
            await editor.checked()
            assert editor.screen.checked is not None and editor.screen.checked.problems
            await editor.press("ctrl+t", "ctrl+r")
            await editor.shown(DifferenceScreen)
            assert "\x1b" not in editor.app.export_screenshot()

    driving.run(go())


def test_what_cannot_be_opened_is_told_and_another_can_be_picked(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")

    async def go() -> None:
        async with editing(tmp_path, "") as editor:
            await editor.shown(PickPresetScreen)
            await editor.press("escape")
            await driving.until(editor.pilot, lambda: not isinstance(editor.app.screen, PickPresetScreen))
            editor.app.open_editor("bytes.toml")
            await driving.until(editor.pilot, lambda: any("UTF-8" in note for note in editor.told))
            await editor.shown(PickPresetScreen)
            await driving.calm(editor.pilot)  # a screen that is closed while it opens misses its children

    driving.run(go())


def test_no_torch_in_this_process() -> None:
    code = "import sys, lreg_tui.presets.preset_editor, lreg_tui.runs.run_screen; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(lreg_tui.__file__).parent.parent, check=False).returncode
        == 0
    )
