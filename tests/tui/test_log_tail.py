"""The end of a log: read as it grows, harmless, followed unless somebody has scrolled up."""

from __future__ import annotations

import os
import time

import pytest
from textual.app import App
from tui.driving import change_json, make_run, run, settle, until

from lreg_tui.text import log_file
from lreg_tui.text.log_file import LogFile, last_lines, plain
from lreg_tui.widgets.log_tail import LogTail

HOSTILE = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\x1b[0m \x07\u202eevil\r\n"


def numbered(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last))


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (HOSTILE, "[bold]red[/bold] ��evil"),
        ("a\tb", "a       b"),
        (" 10%\r 20%\r 30%", " 30%"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("cut off\x1b", "cut off"),
        ("cut off\x1b[3", "cut off3"),
        ("\x9b31mC1", "�31mC1"),
    ],
)
def test_a_line_is_plain_text(line, expected):
    assert plain(line) == expected


def test_a_log_is_read_as_it_grows(tmp_path):
    path = tmp_path / "log.txt"
    log = LogFile(path)
    assert log.look() is None  # nothing there
    path.write_text("one\ntwo\nthr")
    assert log.look().lines == ("one", "two", "thr")
    assert log.look() is None  # nothing new
    with path.open("a") as file:
        file.write("ee\nfour\n")
    assert log.look().lines == ("one", "two", "three", "four")


def test_a_torn_character_is_whole_in_the_end(tmp_path):
    path = tmp_path / "log.txt"
    log = LogFile(path)
    path.write_bytes("ρ".encode()[:1])
    log.look()
    path.write_bytes("ρ\n".encode())
    assert log.look().lines == ("ρ",)


def test_only_the_last_lines_are_kept_and_the_rest_is_counted(tmp_path):
    path = tmp_path / "log.txt"
    log = LogFile(path, most_lines=3)
    path.write_text(numbered(0, 5))
    look = log.look()
    assert look.lines == ("line 2", "line 3", "line 4")
    with path.open("a") as file:
        file.write(numbered(5, 7))
    look = log.look()
    assert look.lines == ("line 4", "line 5", "line 6") and look.gone == 2


def test_of_a_long_log_only_the_end_is_read_and_no_half_line(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "LARGEST_READ", 20)
    path = tmp_path / "log.txt"
    path.write_text(numbered(10, 99))
    log = LogFile(path)
    assert log.look().lines == ("line 97", "line 98")
    with path.open("a") as file:
        file.write(numbered(100, 200))
    assert log.look().lines == ("line 198", "line 199")


def test_a_log_that_was_replaced_or_cut_is_read_anew(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(numbered(0, 5))
    log = LogFile(path)
    log.look()
    path.write_text("new\n")
    assert log.look().lines == ("new",)
    os.replace(_other(tmp_path, "quite another\n"), path)
    assert log.look().lines == ("quite another",)
    path.unlink()
    assert log.look().lines == ()


def _other(folder, text):
    (folder / "other").write_text(text)
    return folder / "other"


def test_what_is_no_file_is_an_empty_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it must not wait for a writer
    assert LogFile(tmp_path / "pipe").look() is None
    assert last_lines(tmp_path, 3) == ()


def test_the_last_words_leave_out_empty_lines(tmp_path):
    (tmp_path / "log.txt").write_text("a\nb\n\nc\n\n\n")
    assert last_lines(tmp_path / "log.txt", 2) == ("b", "c")


# -- the widget ------------------------------------------------------------------------------------------------------


class Host(App):
    def __init__(self, path):
        super().__init__()
        self.tail = LogTail(path, lines=50)

    def compose(self):
        yield self.tail

    def on_mount(self):
        self.tail.focus()


def text_of(tail: LogTail) -> list[str]:
    return [tail.render_line(y).text.rstrip() for y in range(tail.size.height)]


def drive(path, steps, size=(40, 5)):
    async def go():
        app = Host(path)
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await steps(pilot, app.tail)

    run(go())


def test_hostile_lines_are_plain_on_the_screen(tmp_path):
    (tmp_path / "log.txt").write_text(HOSTILE)

    async def steps(pilot, tail):
        assert text_of(tail)[0] == "[bold]red[/bold] ��evil"

    drive(tmp_path / "log.txt", steps)


def test_the_newest_line_stays_in_view_until_somebody_scrolls_up(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(numbered(0, 20))

    async def steps(pilot, tail):
        assert text_of(tail)[-1] == "line 19"
        with path.open("a") as file:
            file.write(numbered(20, 30))
        await until(pilot, lambda: len(tail.lines) == 30)
        assert text_of(tail)[-1] == "line 29"
        await pilot.press("pageup")
        await pilot.wait_for_scheduled_animations()
        seen = text_of(tail)
        assert not tail.follows
        with path.open("a") as file:
            file.write(numbered(30, 60))  # ten lines go at the top
        await until(pilot, lambda: tail.lines[-1] == "line 59")
        assert text_of(tail) == seen
        await pilot.press("end")
        assert text_of(tail)[-1] == "line 59" and tail.follows

    drive(path, steps)


def test_another_log_takes_its_place_at_its_end(tmp_path):
    for name, first in (("a", 0), ("b", 100)):
        (tmp_path / name).write_text(numbered(first, first + 20))

    async def steps(pilot, tail):
        await pilot.press("home")
        tail.path = tmp_path / "b"
        await until(pilot, lambda: tail.lines and tail.lines[-1] == "line 119")
        assert text_of(tail)[-1] == "line 119"
        tail.path = None
        await pilot.pause()
        assert "line" not in "".join(text_of(tail))

    drive(tmp_path / "a", steps)


def test_nothing_is_drawn_while_nothing_is_written(tmp_path):
    (tmp_path / "log.txt").write_text(numbered(0, 3))

    async def steps(pilot, tail):
        drawn = []
        tail.refresh = lambda *regions, **options: drawn.append(regions) or tail
        for _ in range(3):
            tail.look()
            await settle(pilot)
        assert not drawn

    drive(tmp_path / "log.txt", steps)


def test_search_goes_through_the_matches_from_the_newest(tmp_path):
    (tmp_path / "log.txt").write_text("NaN first\n" + numbered(0, 20) + "a [nan] again\n" + numbered(20, 40))

    async def steps(pilot, tail):
        assert tail.find("nan") == 2
        await pilot.pause()
        assert "a [nan] again" in text_of(tail)
        await pilot.press("N")
        await pilot.pause()
        assert text_of(tail)[0] == "NaN first"
        await pilot.press("n")
        await pilot.pause()
        assert "a [nan] again" in text_of(tail)
        assert tail.find("[") == 1 and tail.find("nowhere") == 0

    drive(tmp_path / "log.txt", steps)


def test_long_lines_are_wrapped_where_that_is_asked_for(tmp_path):
    (tmp_path / "log.txt").write_text(numbered(0, 20) + "a" * 50 + " end\n")

    async def steps(pilot, tail):
        assert text_of(tail)[-1].startswith("a" * 40) and tail.follows
        await pilot.press("W")
        await until(pilot, lambda: text_of(tail)[-1].endswith("end") and len(text_of(tail)[-1]) < 40)
        assert tail.follows
        with (tmp_path / "log.txt").open("a") as file:
            file.write("b" * 60 + "\n")
        await until(pilot, lambda: text_of(tail)[-1].startswith("b"))
        await pilot.press("W")
        await until(pilot, lambda: text_of(tail)[-1].startswith("b" * 40))

    drive(tmp_path / "log.txt", steps)


def test_levels_leave_out_what_is_of_no_concern_and_keep_a_traceback_whole(tmp_path):
    at = "2026-11-21T12:02:50Z "
    trace = ["Traceback (most recent call last):", '  File "x", line 1', "ValueError: no"]
    words = ["device cpu", "UserWarning: slow", *trace, "device cpu again", "failed at step 3: no"]
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{at}{line}\n" for line in words) + "plain\n")

    def told(tail):
        return [line.removeprefix("12:02:50 UTC ") for line in tail.lines]

    async def steps(pilot, tail):
        tail.short_times = True
        await pilot.press("v")
        assert told(tail) == ["UserWarning: slow", *trace, "failed at step 3: no"]
        with path.open("a") as file:
            file.write("fine\nerror: late\n")
        await until(pilot, lambda: told(tail)[-1] == "error: late")
        await pilot.press("v")
        assert told(tail) == [*trace, "failed at step 3: no", "error: late"]
        assert tail.text.split("\n") == list(tail.lines)
        await pilot.press("v")
        assert len(tail.lines) == len(words) + 3

    drive(path, steps)


def test_what_is_selected_is_copied_or_else_everything(tmp_path):
    (tmp_path / "log.txt").write_text("one\ntwo\n")

    async def steps(pilot, tail):
        await pilot.press("y")
        assert pilot.app.clipboard == "one\ntwo"
        tail.find("wo")
        await pilot.press("y")
        assert pilot.app.clipboard == "wo"

    drive(tmp_path / "log.txt", steps)


def test_short_times_leave_out_the_date(tmp_path):
    (tmp_path / "log.txt").write_text("2026-11-21T12:02:50Z device cpu\nno time\n")

    async def steps(pilot, tail):
        tail.short_times = True
        tail.watch_path()
        await settle(pilot)
        assert text_of(tail)[:2] == ["12:02:50 UTC device cpu", "no time"]

    drive(tmp_path / "log.txt", steps)


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    log_file._local.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    log_file._local.cache_clear()


@pytest.mark.parametrize(("written", "shown"), [
    ("2026-07-14T14:40:00Z device", "2026-07-14 16:40:00 CEST device"),
    ("2026-01-14T23:40:00Z device", "2026-01-15 00:40:00 CET device"),
    ("2026-99-14T14:40:00Z device", "2026-99-14T14:40:00Z device"),
    ("9999-12-31T23:59:59Z x", "9999-12-31T23:59:59Z x"),
    ("no time", "no time"), ("", ""), ("at 2026-01-14T23:40:00Z device", "at 2026-01-14T23:40:00Z device"),
])  # fmt: skip
def test_times_are_by_the_readers_clock_with_its_zone(berlin, written, shown):
    assert log_file.with_local_time(written) == shown


def test_a_zone_without_a_name_is_told_by_its_distance(berlin, monkeypatch):
    monkeypatch.setenv("TZ", ":/dev/null")
    time.tzset()
    assert log_file.with_local_time("2026-07-14T14:40:00Z device") == "2026-07-14 14:40:00 +0000 device"


def test_the_command_line_tells_times_by_the_readers_clock(berlin, tmp_path, capsys):
    from lreg_tui.cli.look import logs, show

    made = make_run(tmp_path, log="2026-07-14T14:40:00Z device cpu\nno time\n")
    change_json(made.path / "run.json", created="2026-07-14T14:40:00.123456Z")
    logs(str(made.path), lines=10)
    assert capsys.readouterr().out == "2026-07-14 16:40:00 CEST device cpu\nno time\n"
    show(str(made.path))
    assert "2026-07-14 16:40:00 CEST" in capsys.readouterr().out
