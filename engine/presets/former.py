"""Former forms of the [objective] table, brought into today's as each file and override is read.

Formerly terms stood beside the table's keys, [objective.sharpness], and were measured `at_loss`; the last loss on fresh
batches was loss = "last" with `batches` above 0, drawn from the `split`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.presets.tables import AT_THE_END, ON_FRESH_BATCHES, ObjectiveSettings

TERMS = "terms"  # the table in [objective] in which terms stand by name
LOSS = ("loss", "batches", "split")
SPLITS = {"train": "last_many", "validation": "validation"}
SETTINGS = {*LOSS, *(item.name for item in dataclasses.fields(ObjectiveSettings))}


def todays(values: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A preset's tables in today's form; `below`: those that they are to be merged into, in it already."""
    objective = values.get("objective")
    if not isinstance(objective, Mapping):
        return dict(values)
    return {**values, "objective": todays_objective(objective, _objective(below or {}))}


def todays_objective(table: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An [objective] table in today's form: what is of no form is left to whoever checks it."""
    today = {key: value for key, value in table.items() if key not in LOSS and not _is_former_term(key, value)}
    former = {name: _term(term) for name, term in table.items() if _is_former_term(name, term)}
    terms = today.get(TERMS, {})
    if isinstance(terms, Mapping) and (terms or former):
        todays_terms = {name: _term(term) for name, term in terms.items()}
        for name, term in former.items():
            todays_terms[name] = {**_table(todays_terms.get(name)), **term}
        today[TERMS] = todays_terms
    return {**_loss({key: table[key] for key in LOSS if key in table}, below or {}), **today}


def todays_pairs(pairs: Iterable[tuple[str, Any]], below: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values by key path, as --set has them, for tables in today's form."""
    loss: dict[str, Any] = {}
    for path, value in pairs:
        section, *keys = path.split(".")
        if section != "objective" or (not keys and not isinstance(value, Mapping)):
            yield path, value
        elif len(keys) == 1 and keys[0] in LOSS:
            loss[keys[0]] = value
        else:
            table = value
            for key in reversed(keys):
                table = {key: table}
            table = todays_objective(table)
            depth = len(keys) + (TERMS in table and keys[:1] not in ([], [TERMS]))
            shortened = [section]
            for _ in range(depth):
                ((key, table),) = table.items()
                shortened.append(key)
            yield ".".join(shortened), table
    for key, value in _loss(loss, _objective(below)).items():
        yield f"objective.{key}", value


def todays_path(path: str) -> str:
    """A key path in today's form, whatever value is meant for it."""
    return next(todays_pairs([(path, None)], {}))[0]


def _is_former_term(name: str, value: Any) -> bool:
    """A term's table holds no tables."""
    if name == TERMS or name in SETTINGS or not isinstance(value, Mapping):
        return False
    return not any(isinstance(item, Mapping) for item in value.values())


def _term(table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    return {"at" if key == "at_loss" else key: value for key, value in table.items()}


def _loss(table: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Today's `loss` and `batches` for what a layer says, over a table in today's form.

    A `split` that never was one stays, to be told as what it is: an unknown key.
    """
    split, batches = table.get("split", "train"), table.get("batches", 0)
    if table.get("loss") in ON_FRESH_BATCHES or not isinstance(split, str) or split not in SPLITS:
        return dict(table)
    is_none = type(batches) is int and batches == 0
    today = {key: value for key, value in table.items() if key == "loss" or (key == "batches" and not is_none)}
    loss, loss_below = table.get("loss", below.get("loss")), below.get("loss")
    if loss not in AT_THE_END:
        return today
    if "batches" in table and is_none:
        today["loss"] = "last"
    elif "split" in table and ("batches" in table or loss_below in ON_FRESH_BATCHES):
        today["loss"] = SPLITS[split]
    elif "batches" in table and loss == "last":
        today["loss"] = loss_below if loss_below in ON_FRESH_BATCHES else "last_many"
    return today


def _objective(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return _table(values.get("objective"))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
