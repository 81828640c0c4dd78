"""Arms of a study file: each one's preset with what the study sets over it, its axes, and the check of every cell."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from engine.base.errors import MOST_PROBLEMS, PresetError, Problem
from engine.base.settings import did_you_mean, show
from engine.presets import document as documents
from engine.presets.catalog import Catalog
from engine.presets.document import Document
from engine.presets.preset import Preset, from_mapping
from engine.study.plan.axes import ends, flat
from engine.study.plan.plan import MOST_CELLS, ArmPlan, Axis, Point, StudyPlan

OWN_KEYS = {"seed": "seeds = [...]", "name": "no name: runs are called after study, arm and point"}


@dataclass(frozen=True)
class ArmRequest:
    """An arm as the file has it. `layers`: what is set over the preset, by where it stands, the last word last."""

    name: str
    preset: str | None  # a path beside the study, or a shipped name; empty: the defaults; None: none that fits
    preset_from: str  # the key that names it
    layers: tuple[tuple[str, Mapping[str, Any]], ...]
    axes: tuple[tuple[str, Axis], ...]  # with the key path where each stands


def numbered(path: str, values: Mapping[str, Any]) -> str:
    """A key path of a study file in which an arm goes by its name, with the arm's number instead."""
    for index, name in enumerate(_names(values)):
        if name and path.startswith(f"arm.{name}."):
            return f"arm.{index}." + path.removeprefix(f"arm.{name}.")
    return path


def named(problem: Problem, values: Mapping[str, Any]) -> Problem:
    """A problem with an override; where it is of an arm that is not there, the arms are named."""
    _, is_missing, missing = problem.found.partition("no arm.")
    names = [name for name in _names(values) if name]
    if not is_missing or not names:
        return problem
    allowed = "an arm: " + ", ".join(names)
    return dataclasses.replace(problem, allowed=allowed, hint=did_you_mean(missing, names))


def _names(values: Mapping[str, Any]) -> list[str]:
    """What the arms of a study file are called, in order; empty for what has no name."""
    arms = values.get("arm")
    names = [arm.get("name") if isinstance(arm, Mapping) else "" for arm in (arms if isinstance(arms, list) else ())]
    return [name if isinstance(name, str) else "" for name in names]


def resolve(wish: ArmRequest, folder: Path, source: str, catalog: Catalog) -> tuple[ArmPlan | None, list[Problem]]:
    """The arm with its whole preset, checked; or what is wrong with it. `folder` is that of the study file."""
    try:
        document = _base(wish, folder, catalog)
    except PresetError as error:
        return None, [_placed(problem, source) for problem in error.problems]
    places = {marker for marker, _ in wish.layers}
    problems = []
    for marker, table in wish.layers:
        pairs = list(flat(table).items())
        problems += [
            Problem(f"{marker}.{path}", "a key that the study gives itself", OWN_KEYS[path], source=source)
            for path, _ in pairs
            if path in OWN_KEYS
        ]
        found = documents.put(document, [pair for pair in pairs if pair[0] not in OWN_KEYS], marker, catalog)
        problems += [dataclasses.replace(item, path=f"{marker}.{item.path}", source=source) for item in found]
    try:
        preset = from_mapping(document.values, catalog=catalog)
    except PresetError as error:
        return None, problems + [_said(item, document, places, source) for item in error.problems]
    problems += _missing_axes(wish, preset, source)
    if problems:
        return None, problems
    return ArmPlan(wish.name, tomli.loads(preset.dumps()), tuple(axis for _, axis in wish.axes)), []


def _base(wish: ArmRequest, folder: Path, catalog: Catalog) -> Document:
    """The tables of the arm's preset file: one beside the study, else a shipped one. Raises PresetError."""
    if not wish.preset:
        return Document({"name": "default"}, [])
    presets, name = documents.shipped(), wish.preset.removesuffix(".toml")
    beside = folder / wish.preset
    if documents.is_file(beside):
        path = beside
    elif name in presets:
        path = presets[name]
    else:
        allowed = "a TOML file beside the study, or one of: " + ", ".join(presets)
        hint = did_you_mean(Path(wish.preset).stem, presets)
        found = f"{show(wish.preset)}, {documents.instead_of_file(beside, 'preset')}"
        raise PresetError([Problem(wish.preset_from, found, allowed, hint)])
    document = documents.read(path, wish.preset, catalog)
    document.values.setdefault("name", path.stem)
    return document


def _placed(problem: Problem, source: str) -> Problem:
    return problem if problem.source else dataclasses.replace(problem, source=source)


def _said(problem: Problem, document: Document, places: set[str], source: str) -> Problem:
    """A problem of a preset, where it stands: in the study's tables, else in the preset's own files."""
    said_by = document.source_of(problem.path)
    if said_by in places:
        return dataclasses.replace(problem, path=f"{said_by}.{problem.path}", source=source)
    return dataclasses.replace(problem, source=said_by or (document.layers[-1][0] if document.layers else source))


def _missing_axes(wish: ArmRequest, preset: Preset, source: str) -> list[Problem]:
    keys = preset.flat()
    found = f'a key that the preset of arm "{wish.name}" does not have'
    problems: list[Problem] = []
    for path, axis in wish.axes:
        if axis.key in keys:
            continue
        table = axis.key.rsplit(".", 1)[0] + "."
        allowed = ", ".join(key for key in keys if key.startswith(table)) or "a key of its preset, as meta.epochs"
        hint = did_you_mean(axis.key, keys, 0.8) if len(problems) < MOST_PROBLEMS else ""  # of the rest nobody sees any
        problems.append(Problem(path, found, allowed, hint, source))
    return problems


def check_cells(plan: StudyPlan, places: Mapping[tuple[str, str], str], source: str) -> list[Problem]:
    """What is wrong with the runs of a study: every point of a grid, or the ends of what is searched.

    `places` tells where an arm's axis stands in the file, by arm and key.
    """
    points = {arm.name: math.prod(len(axis.values) or 2 for axis in arm.axes) for arm in plan.arms}
    cells = sum(points.values()) * len(plan.seeds)
    if cells > MOST_CELLS:
        return [Problem("axes", f"{cells} runs", f"at most {MOST_CELLS} in a study", source=source)]
    one_seed = dataclasses.replace(plan, seeds=plan.seeds[:1])  # the meta-seed fits every preset
    found: dict[tuple[str, str, str], Problem] = {}
    for arm in plan.arms:
        for point in _points(arm):
            try:
                list(one_seed.cells_of(arm, [point]))
            except PresetError as error:
                for problem in error.problems:
                    placed = _at_point(problem, arm, point, places, source)
                    found.setdefault((placed.path, placed.found, placed.allowed), placed)
    return list(found.values())


def _points(arm: ArmPlan) -> Iterator[Point]:
    keys = [axis.key for axis in arm.axes]
    for values in itertools.product(*(ends(axis) for axis in arm.axes)):
        yield dict(zip(keys, values, strict=True))


def _at_point(
    problem: Problem, arm: ArmPlan, point: Point, places: Mapping[tuple[str, str], str], source: str
) -> Problem:
    """A problem of one cell, at the axis that makes it; else at the arm, with the point in the hint."""
    where = ", ".join(f"{key} = {show(value)}" for key, value in point.items())
    path = places.get((arm.name, problem.path), f"arm.{arm.name}.{problem.path}")
    axis = next((axis for axis in arm.axes if axis.key == problem.path), None)
    hint = problem.hint
    if axis is not None and isinstance(point[axis.key], float) and "an integer" in problem.allowed:
        hint = "in a range, integer = true gives whole numbers"
    elif axis is None or len(point) > 1:
        hint = hint or f"at {where}"
    return dataclasses.replace(problem, path=path, hint=hint, source=source)


def first_plain(arms: Sequence[ArmPlan]) -> str:
    """The arm that others are compared with unless the study says so: the first without a penalty, else the first."""
    return next((arm.name for arm in arms if not arm.preset.get("penalty")), arms[0].name)
