"""Figures fit for a paper: plot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base.errors import SettingsError
from engine.base.settings import Setting
from engine.comparison import Arm, group_arms
from engine.figures import FIGURES, LANDSCAPE, Block, blocks, evaluated
from engine.figures.landscapes import LandscapePanel, LandscapeSettings, landscapes
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    DataDir,
    Device,
    RunOrStudyReferences,
    RunsDir,
    check_choice,
    complete_target,
    find_runs,
    whole_number,
)
from lreg_tui.figures import page
from lreg_tui.text import present


def complete_figure(incomplete: str) -> list[str]:
    return [name for name in FIGURES if name.startswith(incomplete)]


def plot(
    references: RunOrStudyReferences,
    target: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Ends in .png, .svg or .pdf.")],
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure",
            metavar="NAME",
            help=f"One of: {', '.join(FIGURES)}; may be given again. Default: all that there are data for, "
            f"but {LANDSCAPE}, which takes a while.",
            autocompletion=complete_figure,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="DATASET/OPTIMIZEE",
            help="Only this task. Default: all that were evaluated.",
            autocompletion=complete_target,
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="N", help="Inner step. Default: the last one of all.")
    ] = None,
    radius: Annotated[
        str | None, typer.Option("--radius", metavar="R", help="Radius of sharpness. Default: the middle one.")
    ] = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    device: Device = None,
) -> None:
    """Draw runs side by side: runs that differ in the meta-seed alone are drawn as one, with intervals.

    The sentence for the caption goes to stderr, and into the file's metadata.
    """
    page.check_path(target)
    figures = tuple(dict.fromkeys(figure or ()))
    for name in figures:
        check_choice("--figure", name, FIGURES)
    inner_step = None if step is None else whole_number("--step", step, 0)
    at_radius = None if radius is None else _radius(radius)
    readers, _ = find_runs(references, runs_dir)
    arms = group_arms(readers)
    found = [] if figures == (LANDSCAPE,) else _blocks(arms, figures, task, inner_step, at_radius)
    sentences = [block.caption for block in found]
    surfaces: list[LandscapePanel] = []
    if LANDSCAPE in figures:
        settings = LandscapeSettings(task, inner_step, data_dir=data_dir)
        # at any task and step, whether it was evaluated or not
        surfaces, caption = landscapes(evaluated(arms, radius=at_radius), settings, _device(device), output.say)
        sentences.append(caption)
    with page.styled():
        page.save(page.draw_page(found, surfaces), target, " ".join(sentences))
    print(present.clean(target, 4000))
    for sentence in sentences:
        output.say(sentence)


def _blocks(
    arms: list[Arm], figures: tuple[str, ...], task: str | None, step: int | None, radius: float | None
) -> list[Block]:
    found = evaluated(arms, task, step, radius)
    if found.damaged:
        output.say_damaged(found.damaged)
    return blocks(found, figures)


def _device(text: str | None) -> Any:
    from engine.base.device import pick_device

    return pick_device(text or "auto")


def _radius(text: str) -> float:
    try:
        value: Any = float(text) if re.search(r"\d", text) else text
    except ValueError:
        value = text
    fit, problem = Setting("--radius", ("float",), 0.05, "", above=0.0).check(value)
    if problem is not None:
        raise SettingsError([problem])
    return float(fit)
