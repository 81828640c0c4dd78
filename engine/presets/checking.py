"""Whether nested tables are a preset: every key checked against the catalog, and what concerns several of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.base.draws import Choices, drawable
from engine.base.errors import MOST_PROBLEMS, Problem
from engine.base.settings import UNKNOWN, Setting, check_table, did_you_mean, schema_of, setting, show
from engine.presets.catalog import Catalog
from engine.presets.tables import ON_FRESH_BATCHES, WITHOUT_DERIVATIVE

TABLES = ("task", "optimizer", "meta", "objective", "penalty", "evaluation")
NO_TERMS = ("tbptt", "second_order")  # estimators that need the objective's derivative: they have that of losses


@dataclass(frozen=True)
class PresetSettings:
    """The keys at the top of a preset."""

    name: str = setting("", help="what the run is called; empty: the file's name")
    description: str = setting("", help="one line on what the preset is for")
    tags: tuple[str, ...] = setting((), help="words to find the run by", allow_empty=True)
    seed: int = setting(0, minimum=0, maximum=2**53, help="meta-seed: everything random derives from it")
    threads: int = setting(0, minimum=0, maximum=4096, help="CPU threads of the run; 0: what torch chooses")


def check(document: Mapping[str, Any], catalog: Catalog) -> tuple[dict[str, Any], list[Problem]]:
    """Every key with its value (None for one that does not fit), and every problem."""
    checker = _Checker(catalog)
    if "extends" in document:
        checker.problems.append(Problem("extends", "a preset to extend", "extends in a file; here tables stand alone"))
    top = {key: value for key, value in document.items() if key not in (*TABLES, "extends")}
    values = checker.table(top, "", schema_of(PresetSettings))
    values["name"] = "unnamed" if values["name"] == "" else values["name"]
    values["task"] = checker.tasks(document.get("task", {}))
    values["optimizer"] = checker.with_members(checker.section(document, "optimizer"), "optimizer", "optimizer")
    values["meta"] = checker.with_members(checker.section(document, "meta"), "meta", "meta")
    values["objective"] = checker.objective(checker.section(document, "objective"))
    values["evaluation"] = checker.table(
        checker.section(document, "evaluation"), "evaluation", catalog.sections["evaluation"]
    )
    values["penalty"] = checker.named_tables(document.get("penalty", {}), "penalty")
    return values, checker.problems + _rules(values)


@dataclass
class _Checker:
    """Checks the tables of one preset and collects what is wrong with them."""

    catalog: Catalog
    problems: list[Problem] = field(default_factory=list)
    _merged: dict[tuple[str, str], tuple[dict[str, Setting], dict[str, list[str]]]] = field(default_factory=dict)

    def table(
        self, table: Mapping[str, Any], path: str, schema: Iterable[Setting], also_allowed: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The values of a table's own settings; `also_allowed`: what else may stand in it."""
        schema = list(schema)
        values, problems = check_table(table, schema, path)
        allowed = [item.name for item in schema] + (["extends"] if not path else list(also_allowed))
        for problem in problems:
            if problem.found == UNKNOWN and len(self.problems) < MOST_PROBLEMS:
                problem = self._unknown(problem.path.removeprefix(f"{path}."), path, allowed)
            self.problems.append(problem)
        return values

    def section(self, document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        table = document.get(name, {})
        if isinstance(table, Mapping):
            return table
        self.problems.append(Problem(name, show(table), f"a table: [{name}]", self._picked(name, table)))
        return {}

    def tasks(self, value: Any) -> list[dict[str, Any]]:
        if isinstance(value, Mapping):
            value = [value]
        if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
            paths = ["task"] if len(value) == 1 else [f"task.{index}" for index in range(len(value))]
            return [self.with_members(item, path, "task") for path, item in zip(paths, value, strict=True)]
        hint = self._picked("task", value)
        self.problems.append(Problem("task", show(value), "a table [task], or several [[task]]", hint))
        return []

    def with_members(self, table: Mapping[str, Any], path: str, section: str) -> dict[str, Any]:
        """A table that picks members: its keys are the section's own, and those of every member that it picks.

        Where a pick is wrong already, the settings of all that could have been meant are fine. A [task] may draw from
        its keys: where it draws the member itself, a key has to fit every member that has it, and one that not all of
        them have, or with another default, is there if it is given.
        """
        may_draw = section == "task"
        schema = {item.name: item for item in self.catalog.schema_of(section, table)}
        elsewhere: dict[str, tuple[str, str]] = {}
        picked: list[Setting] = []
        given_only: set[str] = set()
        for key, default, members in self.catalog.selectors(section):
            chosen = table.get(key, default)
            kinds = list(chosen) if may_draw and isinstance(chosen, (list, tuple)) else [chosen]
            are_known = bool(kinds) and all(isinstance(kind, str) and kind in members for kind in kinds)
            picked += [item for kind in kinds if are_known for item in members[kind]]
            everything, owners = self._of_all(section, key, members)
            schema |= {} if are_known else everything
            if are_known and len(kinds) > 1:
                given_only |= _unlike([members[kind] for kind in kinds])
            for name in owners if are_known and owners.keys() & table.keys() - schema.keys() else ():
                told = f"a key that {key} = {show(chosen)} does not have"
                elsewhere[name] = told, f"it is one of {_either(owners[name])}"
        foreign = [key for key in table if key in elsewhere and key not in schema]
        self.problems += [
            Problem(f"{path}.{key}", elsewhere[key][0], ", ".join(schema), elsewhere[key][1]) for key in foreign
        ]
        own_values = {key: table[key] for key in table if key not in foreign}
        given_settings = [item for item in schema.values() if item.name in table] if may_draw else []
        fields: list[Setting] = list((schema | {item.name: item for item in drawable(given_settings, table)}).values())
        values = self.table(own_values, path, fields)
        needed = [item for item in picked if item.is_path and values[item.name] == ""]
        for item in drawable(picked, table) if given_only else ():
            problem = item.check(table[item.name])[1] if item.name in table else None
            if problem is not None and values[item.name] is not None:
                self.problems.append(dataclasses.replace(problem, path=f"{path}.{item.name}"))
        values = {key: value for key, value in values.items() if key not in given_only or key in table}
        self.problems += [Problem(f"{path}.{item.name}", '""', item.help) for item in needed]
        return values

    def objective(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The [objective] table; `batches` only where it means something."""
        settings = {key: value for key, value in table.items() if key != "terms"}
        values = self.table(settings, "objective", self.catalog.sections["objective"], ["terms"])
        if values["loss"] not in (*ON_FRESH_BATCHES, None):
            del values["batches"]
        return {**values, "terms": self.named_tables(table.get("terms", {}), "objective.terms")}

    def _of_all(
        self, section: str, key: str, members: Mapping[str, Iterable[Setting]]
    ) -> tuple[dict[str, Setting], dict[str, list[str]]]:
        """The settings of all members that a key may pick, and which members have each; once for all tables."""
        if (section, key) not in self._merged:
            owners: dict[str, list[str]] = {}
            for kind, settings in members.items():
                for item in settings:
                    owners.setdefault(item.name, []).append(kind)
            everything = {item.name: item for settings in members.values() for item in settings}
            self._merged[section, key] = everything, owners
        return self._merged[section, key]

    def named_tables(self, tables: Any, section: str) -> dict[str, Any]:
        """Tables of members by name: penalties, and the objective's terms."""
        members = self.catalog.named_tables()[section]
        if not isinstance(tables, Mapping):
            hint = self._picked(section, tables)
            example = {"penalty": "sam"}.get(section, next(iter(members)))
            self.problems.append(Problem(section, show(tables), f"tables, as [{section}.{example}]", hint))
            return {}
        values: dict[str, Any] = {}
        for name, settings in tables.items():
            path = f"{section}.{name}"
            if name not in members:
                is_told = len(self.problems) < MOST_PROBLEMS
                unknown = self._unknown(str(name), section, list(members)) if is_told else Problem(path, UNKNOWN, "")
                self.problems.append(unknown)
            elif isinstance(settings, Mapping):
                values[name] = self.table(settings, path, members[name])
            else:
                hint = f"{path}.weight = 0 makes it count nothing" if settings is False else f"as {path}.weight = 1"
                self.problems.append(Problem(path, show(settings), f"a table: [{path}]", hint))
        return values

    def _unknown(self, key: str, table: str, allowed_keys: list[str]) -> Problem:
        """A key that its table does not know; the hint is a near miss, or where it belongs."""
        allowed = ", ".join(allowed_keys) + ("" if table else "; tables: " + ", ".join(TABLES))
        candidates = allowed_keys if table else [*allowed_keys, *TABLES]
        hint = did_you_mean(key, candidates, 0.85)
        for word, home in self._homes().items() if not hint else ():
            if word == key.lower():
                hint = f"did you mean {_either(home)}?"
        return Problem(f"{table}.{key}" if table else key, UNKNOWN, allowed, hint or did_you_mean(key, candidates))

    def _homes(self) -> dict[str, list[str]]:
        """Every key there is, with the paths where it may stand."""
        catalog = self.catalog
        homes: dict[str, list[str]] = {table: [f"[{table}]"] for table in TABLES}
        for key in ("extends", *(item.name for item in schema_of(PresetSettings))):
            homes[key] = [f"{key} before the first table"]
        homes["kind"] = ["optimizer.kind"]
        homes["terms"] = ["[objective.terms.NAME]"]
        homes["split"] = ['objective.loss = "validation"']
        for table, schema in catalog.tables():
            for path in (f"{table}.{item.name}" for item in schema):
                if path not in (of_key := homes.setdefault(path.removeprefix(f"{table}."), [])):
                    of_key.append(path)
        for section, members in catalog.named_tables().items():
            for name in members:
                homes.setdefault(name, []).append(f"[{section}.{name}]")
        return homes

    def _picked(self, table: str, value: Any) -> str:
        """A member's name where a table should be: say how it is picked."""
        families = [(f"{table}.{key} = {show(value)}", members) for key, _, members in self.catalog.selectors(table)]
        named = self.catalog.named_tables()
        families += [(f"[{table}.{value}]", named[table])] if table in named else []
        homes = [home for home, members in families if isinstance(value, str) and value in members]
        return f"did you mean {homes[0]}?" if homes else ""


def _unlike(schemas: Iterable[Iterable[Setting]]) -> set[str]:
    """The keys that not all of some members have, or not with the same default."""
    defaults = [{item.name: item.default for item in schema} for schema in schemas]
    names = {name for of_member in defaults for name in of_member}
    return {
        name for name in names if any(of_member.get(name, UNKNOWN) != defaults[0].get(name) for of_member in defaults)
    }


def _either(words: list[str]) -> str:
    """a, b or c; of many the first and how many more."""
    if len(words) > 4:
        return f"{', '.join(words[:3])} or {len(words) - 3} more"
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _rules(values: Mapping[str, Any]) -> list[Problem]:
    """What concerns more than one value, as far as these fit by themselves (else they are None)."""
    problems = []
    name, meta, radii = values["name"], values["meta"], values["evaluation"]["radii"]
    if name is not None and (len(name) > 80 or not name.isprintable() or not name.strip()):
        problems.append(Problem("name", show(name), "at most 80 printable characters, not only spaces"))
    estimator = meta["estimator"]
    problems += _truncation_problems(meta) + joint_problems(
        meta,
        values["objective"],
        values["penalty"],
        takes_terms=estimator not in NO_TERMS,
        differentiates=estimator in (*NO_TERMS, None),
    )
    if radii is not None and len({f"{radius:g}" for radius in radii}) < len(radii):
        problems.append(Problem("evaluation.radii", show(radii), "different radii"))
    for index, task in enumerate(values["task"]):
        path = "task" if len(values["task"]) == 1 else f"task.{index}"
        for classes in task["classes"] if isinstance(task["classes"], Choices) else [task["classes"]]:
            if classes and len(set(classes)) < max(2, len(classes)):
                problems.append(Problem(f"{path}.classes", show(classes), "two or more different classes"))
    return problems


def joint_problems(
    meta: Mapping[str, Any],
    objective: Mapping[str, Any],
    penalties: Mapping[str, Mapping[str, Any]],
    *,
    takes_terms: bool,
    differentiates: bool,
) -> list[Problem]:
    """What does not go together in [meta], [objective] and the penalties, as far as values fit by themselves.

    `takes_terms`, `differentiates`: what the estimator does, as `GradientEstimator` says.
    """
    problems = []
    if not differentiates:
        for key, reason in (("learn_start", ", which does not differentiate the unroll"), ("second_order", "")):
            if meta[key]:
                problems.append(Problem(f"meta.{key}", "true", f"false with estimator = {meta['estimator']}{reason}"))
    for name, term in objective["terms"].items():
        if None not in (term["start"], meta["epochs"]) and term["start"] >= meta["epochs"]:
            path, allowed = f"objective.terms.{name}.start", f"below {meta['epochs']}, meta.epochs"
            problems.append(Problem(path, show(term["start"]), allowed, "it would never count"))
    if not takes_terms:
        loss, log = objective["loss"], objective["log"]
        beyond = {"objective.loss": loss} if loss in WITHOUT_DERIVATIVE else {}
        beyond |= {"objective.log": log} if log else {}
        beyond |= {f"objective.terms.{name}": term for name, term in objective["terms"].items()}
        allowed = 'left out, or meta.estimator = "es" or "pes"'
        problems += [Problem(path, show(value), allowed) for path, value in beyond.items()]
    steps = meta["inner_steps"] or ()
    stages = steps if isinstance(steps, tuple) else (steps,)
    if any(later <= earlier for earlier, later in zip(stages, stages[1:], strict=False)):
        problems.append(Problem("meta.inner_steps", show(stages), "a growing list: the curriculum's stages"))
    if len(stages) > 1 and meta["average"]:
        problems.append(Problem("meta.average", show(meta["average"]), "0 with a curriculum"))
    for name, penalty in penalties.items():
        if stages and penalty["start"] is not None and penalty["start"] >= max(stages):
            allowed = f"below {max(stages)}, the length of an unroll (meta.inner_steps)"
            problems.append(Problem(f"penalty.{name}.start", show(penalty["start"]), allowed, "it would never count"))
    return problems


def _truncation_problems(meta: Mapping[str, Any]) -> list[Problem]:
    steps, truncation = meta["inner_steps"], meta["truncation"]
    if None in (steps, truncation) or meta["estimator"] == "es":
        return []
    stages = steps if isinstance(steps, tuple) else (steps,)
    reason = "the shortest of meta.inner_steps" if len(stages) > 1 else "which is meta.inner_steps"
    allowed = f"at most {min(stages)}, {reason}"
    return [Problem("meta.truncation", show(truncation), allowed)] if truncation > min(stages) else []
