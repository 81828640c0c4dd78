"""Filter language of runs, of console and command line: `state:running gam.weight>1 name~^lo-(sam|gam)$ -tag:x mlp`.

All terms must hold. Words without a field are looked for in name and id, and among task, optimizer, penalties and tags;
a setting is a field by the end of its path.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from engine.base.errors import LregError, printable
from engine.base.metrics import RECORDED, metric
from engine.base.settings import did_you_mean, show
from engine.base.status import STATES, STOPPING, is_number
from engine.runs.kinds import TRANSFER
from lreg_tui.runs.feed import RunRow

Predicate = Callable[[RunRow], bool]

STATE_NAMES = (*STATES, STOPPING, "crashed")
NONE = "none"
FIELDS = {
    "state": "state of the run: " + ", ".join(STATE_NAMES),
    "name": "part of its name",
    "id": "part of its id",
    "task": "dataset, optimizee, or dataset/optimizee",
    "optimizer": "kind of learned optimizer",
    "estimator": "of the meta-gradient",
    "penalty": "one of its penalties and terms of the objective, or none",
    "tag": "one of its tags, or none",
    "seed": "meta-seed",
    "device": "part of what it computes on",
    "message": "part of its last message",
    "is": "live, pinned, transfer",
}
KINDS = {
    "live": lambda row: row.is_live,
    "pinned": lambda row: row.pinned,
    "transfer": lambda row: row.kind is TRANSFER,
}
COUNTED = ("step", "total", "progress", "eta", "age", "seed")
COMPARE = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
MATCHES = "~"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_COMPARISON = re.compile(r"([A-Za-z][\w.-]*)(<=|>=|!=|<|>|=|~)(.*)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z][\w.]*):(.*)", re.DOTALL)
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+", re.ASCII)
HELP = """\
Words look in name and id, and for whole words of task, optimizer, penalties and tags.
All terms must hold; a minus before a term turns it round.
state:running,paused   one of several; fields: {fields}
name:"my run" lo*      quotes keep blanks together; * stands for anything: lo* begins with lo
name~^lo-(sam|gam)$    a regular expression, in any field of words
gam.rho>0 kind:dm      settings, by the path or the end of it
penalty:sam tag:paper task:mnist optimizer:dm seed:0 -state:failed
meta_loss<0.5 test_accuracy>=90% step>100 progress>=50% age<2d eta<1h30m
is:live is:pinned is:transfer penalty:none""".format(fields=", ".join(FIELDS))


class FilterError(LregError):
    """A filter that means nothing: what was found, what is allowed, and a near miss."""


@dataclass(frozen=True)
class FilterTerm:
    """One word of a filter: `plain` where quotes keep it from being a field or a comparison."""

    text: str
    negated: bool = False
    plain: bool = False


def compile(text: str, names: Collection[str] = ()) -> Predicate:
    """What decides whether a run is shown. `names`: see `names_of`. Raises FilterError."""
    predicates = [_predicate(term, names) for term in split(text)]
    return lambda row: all(predicate(row) for predicate in predicates)


def names_of(rows: Iterable[RunRow]) -> set[str]:
    """What these runs can be told by beside the known fields: their metrics, and their settings, which have a dot."""
    return {name for row in rows for names in (row.latest, row.settings) for name in names}


def split(text: str) -> list[FilterTerm]:
    """The terms of a filter. Raises FilterError for a quote that is not closed, or a minus before nothing."""
    terms = []
    for word in _WORD.findall(text):
        if word.count('"') % 2:
            raise _error(show(word), 'a closing "')
        negated = word.startswith("-") and not _is_number(word)
        bare = word[1:] if negated else word
        if not bare.strip('"'):
            raise _error(show(word), "a term after -" if negated else "something between the quotes")
        terms.append(FilterTerm(bare.replace('"', ""), negated, bare.startswith('"')))
    return terms


def _predicate(term: FilterTerm, names: Collection[str]) -> Predicate:
    if not term.plain and (match := _FIELD.fullmatch(term.text)):
        predicate = _field(match[1], match[2], names)
    elif not term.plain and (match := _COMPARISON.fullmatch(term.text)):
        predicate = _comparison(match[1], match[2], match[3], names)
    else:
        predicate = _word(term.text)
    return (lambda row: not predicate(row)) if term.negated else predicate


def _word(text: str) -> Predicate:
    """Part of name or id; or a whole word of what the run is of: its task, optimizer, penalties and tags."""
    pattern, whole = _pattern(text), _literal(text.lower())

    def holds(row: RunRow) -> bool:
        told = (word.lower() for name in ("task", "optimizer", "penalty", "tag") for word in words(row, name))
        is_called = fnmatchcase(row.name.lower(), pattern) or fnmatchcase(row.id.lower(), pattern)
        return is_called or any(fnmatchcase(word, whole) for word in told)

    return holds


# -- field:value -----------------------------------------------------------------------------------------------------


def _field(name: str, value: str, names: Collection[str]) -> Predicate:
    field, paths = name.lower(), settings_called(name, names)
    if field not in FIELDS and not paths:
        raise _error(show(f"{name}:"), ", ".join(f"{field}:" for field in FIELDS), _near(name, (*FIELDS, *names)))
    values = [word for word in value.split(",") if word]
    if not values:
        raise _error(f"{name}: without a value", FIELDS.get(field, "a value of the setting, or none"))
    predicates = [_one_of(field, word) if field in FIELDS else _set_to(paths, word) for word in values]
    return lambda row: any(predicate(row) for predicate in predicates)


def _one_of(name: str, value: str) -> Predicate:
    lowered = value.lower()
    if name == "state":
        states = {state for state in STATE_NAMES if fnmatchcase(state, f"{_literal(lowered)}*")}
        if not states:
            raise _error(f"state:{printable(value)}", ", ".join(STATE_NAMES), did_you_mean(value, STATE_NAMES))
        return lambda row: row.state in states
    if name == "is":
        kind = next((kind for kind in KINDS if kind.startswith(lowered)), None)
        if kind is None:
            raise _error(f"is:{printable(value)}", ", ".join(KINDS), did_you_mean(value, KINDS))
        return KINDS[kind]
    if name == "seed":
        if not re.fullmatch(r"\d{1,19}", value, re.ASCII):
            raise _error(f"seed:{printable(value)}", "a whole number")
        return lambda row: row.seed == int(value)
    if name in ("name", "id", "device", "message"):
        pattern = _pattern(value) if name in ("name", "id") else f"*{_literal(lowered)}*"
        return lambda row: fnmatchcase(str(getattr(row, name)).lower(), pattern)
    return _among(name, lowered)


def _among(name: str, value: str) -> Predicate:
    """Whole words, whatever their case, with * for anything: `penalty:sam` is not gsam."""
    pattern = _literal(value)

    def holds(row: RunRow) -> bool:
        values = [word.lower() for word in words(row, name)]
        return any(fnmatchcase(word, pattern) for word in values) or (value == NONE and not values)

    return holds


def words(row: RunRow, name: str) -> Iterable[str]:
    if name == "task":
        tasks = row.task.split("+") if row.task else []
        return [word for task in tasks for word in (task, *task.split("/"))]
    if name in ("penalty", "tag"):
        return row.penalties if name == "penalty" else row.tags
    if name == "is":
        return [kind for kind, holds in KINDS.items() if holds(row)]
    word = getattr(row, name)
    return [str(word)] if word not in (None, "") else []


def _pattern(text: str) -> str:
    """What a whole name has to be: with * as it says, else what the text is any part of."""
    literal = _literal(text.lower())
    return literal if "*" in text else f"*{literal}*"


def _literal(text: str) -> str:
    """The pattern in which only * means something."""
    return re.sub(r"[\[?]", lambda match: f"[{match[0]}]", text)


# -- settings --------------------------------------------------------------------------------------------------------


def settings_called(name: str, names: Collection[str]) -> list[str]:
    """The settings of this path, or whose paths end so. Where nobody has any setting, as before runs are read, what has
    a dot may be one."""
    paths = [path for path in names if "." in path]
    fitting = [path for path in paths if path.lower() == name.lower()]
    fitting = fitting or [path for path in paths if path.lower().endswith(f".{name.lower()}")]
    return fitting or [name] * ("." in name and not paths)


def values_of(row: RunRow, paths: Iterable[str]) -> Iterator[Any]:
    """The values of some settings, each of those that are lists."""
    for path in paths:
        value = row.settings.get(path)
        yield from value if isinstance(value, tuple) else [] if value in (None, "") else [value]


def _set_to(paths: Sequence[str], value: str) -> Predicate:
    """Whole words, whatever their case, with * for anything; of a number the number."""
    pattern = _literal(value.lower())
    number = float(value) if _is_number(value) else None

    def holds(row: RunRow) -> bool:
        values = list(values_of(row, paths))
        is_it = any(v == number if is_number(v) else fnmatchcase(str(v).lower(), pattern) for v in values)
        return is_it or (value.lower() == NONE and not values)

    return holds


# -- metric<value ----------------------------------------------------------------------------------------------------


def _comparison(written: str, sign: str, value: str, names: Collection[str]) -> Predicate:
    name, paths = written.lower().replace("-", "_"), settings_called(written, names)
    if sign == MATCHES:
        return _matches(name, value, paths)
    metrics = (*COUNTED, *RECORDED, *(name for name in names if "." not in name))
    is_metric = name in metrics or metric(name).is_of_objective
    if not (is_metric or paths):
        allowed = f"{', '.join(COUNTED)}, a metric ({', '.join(RECORDED[:6])}, …) or a setting"
        raise _error(show(written), allowed, _near(written, (*metrics, *names)))
    if sign in ("=", "!=") and not (is_metric or _is_number(value)):
        is_it = _set_to(paths, value)
        return is_it if sign == "=" else lambda row: not is_it(row)
    bound, compare = _bound(name, sign, value), COMPARE[sign]

    def holds(row: RunRow) -> bool:
        figures: Iterable[Any] = [figure(row, name)] if is_metric else values_of(row, paths)
        return any(is_number(number) and bool(compare(number, bound)) for number in figures)

    return holds


def _matches(name: str, value: str, paths: Sequence[str]) -> Predicate:
    """A regular expression that is found anywhere in the field, whatever the case."""
    if name not in FIELDS and not paths:
        raise _error(show(f"{name}~"), f"{', '.join(FIELDS)} or a setting", _near(name, FIELDS))
    try:
        pattern = re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise _error(f"{name}~{printable(value)}", f"a regular expression ({error})") from None
    if name not in FIELDS:
        return lambda row: any(pattern.search(str(text)) for text in values_of(row, paths))
    return lambda row: any(pattern.search(text) for text in words(row, name))


def _near(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, [*names, *(name.rpartition(".")[2] for name in names if "." in name)])


def _bound(name: str, sign: str, value: str) -> float:
    if name in ("age", "eta"):
        if not _DURATION.fullmatch(value):
            raise _error(f"{name}{sign}{printable(value)}", "a length of time: 90s, 5m, 1h30m, 2d, 1w")
        return sum(float(part[:-1]) * UNITS[part[-1]] for part in re.findall(r"[\d.]+[smhdw]", value))
    number, share = (value[:-1], 0.01) if value.endswith("%") else (value, 1.0)
    if not _is_number(number):
        raise _error(f"{name}{sign}{printable(value)}", "a number: 0.5, 1e-3, 90%")
    return float(number) * share


def figure(row: RunRow, name: str) -> float | None:
    """A run's number of this name: counted, or the newest value of a metric."""
    if name == "age":
        return None if row.created is None else max(0.0, time.time() - row.created)
    return getattr(row, {"eta": "eta_s"}.get(name, name)) if name in COUNTED else row.latest.get(name)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.IGNORECASE))


def _error(found: str, allowed: str, hint: str = "") -> FilterError:
    return FilterError(printable(f"found {found}; allowed: {allowed}" + (f" ({hint})" if hint else "")))


# -- while it is typed -------------------------------------------------------------------------------------------------


def complete(text: str, rows: Iterable[RunRow]) -> str:
    """The text with its last word completed: a field, or a value that runs have. Just the text, if nothing fits."""
    start = max(text.rfind(" "), text.rfind("-", 0, text.rfind(" ") + 2)) + 1
    word = text[start:]
    name, colon, value = word.partition(":")
    if not word or '"' in word:
        return text
    if not colon:
        offered = [*(f"{field}:" for field in FIELDS), *(f"{metric}<" for metric in (*COUNTED, *RECORDED))]
        settings = sorted({path for row in rows for path in row.settings}) if "." in word else []
        return text[:start] + _first([*offered, *(f"{path}:" for path in settings)], word)
    value = value.rpartition(",")[2]
    return text[: len(text) - len(value)] + _first(_values(name.lower(), rows), value)


def _values(name: str, rows: Iterable[RunRow]) -> list[str]:
    if name == "state":
        return list(STATE_NAMES)
    if name == "is":
        return list(KINDS)
    if name in ("task", "optimizer", "estimator", "penalty", "tag"):
        values = {word for row in rows for word in words(row, name)}
    else:
        rows = list(rows)
        paths = settings_called(name, names_of(rows)) if name not in FIELDS else []
        values = {str(value) for row in rows for value in values_of(row, paths)}
    return sorted(word for word in values if word.isprintable() and " " not in word)


def _first(offered: Iterable[str], start: str) -> str:
    return next((word for word in offered if word.lower().startswith(start.lower())), start) if start else start
