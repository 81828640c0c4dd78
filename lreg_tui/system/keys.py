"""What every key means, in one place: a key has one meaning on all screens, and a meaning one key.

Only in a question are `y` and `n` the answers that everybody expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """`names` of keys, the first of which is shown; `words` for it, of which there may be any where none are listed."""

    names: str
    meaning: str
    words: tuple[str, ...]

    @property
    def shown(self) -> str:
        """As a text names the key."""
        return self.names.split(",")[0].replace("comma", ",")

    @property
    def is_changeable(self) -> bool:
        """True of what a configuration may put on another key: that of a lone character."""
        return len(self.shown) == 1 and self.shown not in "123456"


KEYS = {
    "open": Key(
        "enter",
        "open or accept what is under the cursor, or do what the panel is for",
        ("open", "accept", "edit", "change", "done", "launch", "compute", "diagnose"),
    ),
    "back": Key("escape", "one step back", ("back", "cancel", "close", "no cursor")),
    "quit": Key("q", "quit what is read, or else the console; runs go on", ("quit",)),
    "help": Key("?,f1", "the keys of the moment", ("help",)),
    "palette": Key("ctrl+p", "every action by its name, and themes", ("palette",)),
    "jump": Key("'", "go to a panel or field by a letter", ("jump",)),
    "messages": Key("M", "what was told so far", ("messages",)),
    "panel": Key("tab", "the next panel", ("panel",)),
    "panel_before": Key("shift+tab", "the panel before", ("panel before",)),
    "show": Key("1,2,3,4,5,6", "a tab or panel by its number", ()),
    "up": Key("up,k", "up", ("up", "pan up")),
    "down": Key("down,j", "down", ("down", "pan down")),
    "left": Key("left", "left", ("left", "pan left", "fold")),
    "right": Key("right", "right", ("right", "pan right", "unfold")),
    "page_up": Key("pageup", "a page up", ("page up", "page before")),
    "page_down": Key("pagedown", "a page down", ("page down", "next page")),
    "first": Key("g,home", "the first", ("first",)),
    "last": Key("G,end", "the last", ("last",)),
    "search": Key("/", "search, or filter, this panel", ("search", "filter")),
    "next": Key("n", "the next match", ("next match",)),
    "previous": Key("N", "the match before", ("previous match",)),
    "mark": Key("space", "mark", ("mark",)),
    "mark_all": Key("*,ctrl+a", "mark all, or none", ("mark all", "mark row")),
    "add": Key("a", "add: a run, a study, or a penalty or term", ("new run", "new study", "add")),
    "edit": Key("e", "edit: a new run from this preset", ("edit",)),
    "stop": Key("s", "stop", ("stop",)),
    "pause": Key("u", "pause, and continue", ("pause", "continue")),
    "resume": Key("R", "resume what has stopped, failed or crashed", ("resume",)),
    "transfer": Key("t", "transfer evaluations", ("transfer",)),
    "compare": Key("c", "compare", ("compare",)),
    "rename": Key("r", "rename", ("rename",)),
    "tag": Key("T", "tag", ("tag",)),
    "pin": Key("p", "pin at the top, or no longer", ("pin",)),
    "delete": Key("D", "delete", ("delete",)),
    "undo": Key("U,ctrl+z", "undo what was deleted, renamed or tagged last", ("undo",)),
    "copy": Key("y", "copy to the clipboard", ("copy", "copy id", "copy path")),
    "save": Key("w,ctrl+s", "write to a file", ("save",)),
    "save_as": Key("ctrl+o", "write to another file", ("save as",)),
    "full_screen": Key("z", "the panel on the full screen, and back", ("full screen", "leave full screen")),
    "zoom_in": Key("+", "zoom in", ("zoom in",)),
    "zoom_out": Key("-", "zoom out", ("zoom out",)),
    "zoom_in_y": Key("shift+up", "zoom in on the y axis", ("zoom in on y",)),
    "zoom_out_y": Key("shift+down", "zoom out on the y axis", ("zoom out on y",)),
    "cursor_left": Key("comma", "the cursor of a chart to the left", ("cursor left",)),
    "cursor_right": Key(".", "the cursor of a chart to the right", ("cursor right",)),
    "far_left": Key("<", "the cursor of a chart far to the left", ("cursor far left",)),
    "far_right": Key(">", "the cursor of a chart far to the right", ("cursor far right",)),
    "all": Key("0", "all of a chart", ("all",)),
    "follow": Key("f", "the newest, and follow it", ("follow",)),
    "log_axis": Key("l", "a logarithmic y axis, or a linear one", ("log axis",)),
    "x_axis": Key("x", "the x axis: steps, logarithmic steps, or wall time", ("x axis",)),
    "smooth": Key("~", "smooth more, or not at all", ("smooth",)),
    "metric": Key("m", "another metric", ("metric",)),
    "studies": Key("S", "studies", ("studies",)),
    "report": Key("V", "view the report of a study", ("report",)),
    "processes": Key("P", "what the processes of runs take of this machine", ("processes",)),
    "wrap": Key("W", "wrap long lines, or cut them", ("wrap",)),
    "levels": Key("v", "everything in a log, warnings and errors, errors alone", ("levels",)),
    "log": Key("L", "the log", ("log",)),
    "sort": Key("o", "sort by another column", ("sort",)),
    "reverse": Key("O", "the other way round", ("reverse order",)),
    "differing": Key("=", "only what differs, or everything", ("only differing", "only set")),
    "columns": Key("C", "pick columns", ("columns",)),
    "group": Key("B", "group runs, or no longer", ("group",)),
    "highlight": Key("H", "highlight one of several runs", ("highlight",)),
    "task": Key("d", "compare on the data of another task", ("task",)),
    "reference": Key("b", "the reference that the others are compared with", ("reference",)),
    "step": Key("i", "another inner step", ("inner step",)),
    "less": Key("[", "the page before, or a smaller radius", ("page before", "smaller radius")),
    "more": Key("]", "the next page, or a larger radius", ("next page", "larger radius")),
    "take_back": Key("delete,backspace", "take a setting out again, or give up what is computed", ("unset", "give up")),
    "start": Key("ctrl+l,f5", "launch a run, or start evaluations", ("launch", "start")),
    "other_view": Key(
        "ctrl+t,f6",
        "the other view: form or TOML, request or jobs, grid or chart",
        ("form/TOML", "request/jobs", "grid/chart"),
    ),
    "changes": Key("ctrl+r", "what differs from the file, and from where it began", ("changes",)),
    "next_problem": Key("f8", "the next problem", ("next problem",)),
}


def key_of(meaning: str) -> str:
    """How a text names the key of a meaning."""
    return KEYS[meaning].shown


def change(changes: Mapping[str, str]) -> None:
    """Put meanings on other keys. To be done before there are bindings and texts: they are made of the table."""
    for meaning, name in changes.items():
        KEYS[meaning] = KEYS[meaning]._replace(names=name.replace(",", "comma"))
