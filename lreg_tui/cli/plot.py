"""Figures fit for a paper: plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from engine.base.device import pick_device
from engine.comparison import group_arms
from engine.figures import FIGURES, LANDSCAPE, Block, blocks, evaluated
from engine.figures.landscapes import LandscapePanel, landscapes
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    DataDir,
    Device,
    Plugins,
    RunOrStudyReferences,
    RunsDir,
    choice,
    complete_target,
    find_runs,
    number,
    option,
)
from lreg_tui.figures import page
from lreg_tui.text import present

FIGURE = (
    f"One of: {', '.join(FIGURES)}; may be given again. Default: all that there are data for, but machine, and "
    f"{LANDSCAPE}, which takes a while."
)
TASK = "Only this task. Default: all that were evaluated."


def plot(
    references: RunOrStudyReferences,
    target: Annotated[Path, option("-o --output", "FILE", "Ends in .png, .svg or .pdf.")],
    figure: Annotated[list[str] | None, choice("--figure", "NAME", FIGURES, FIGURE)] = None,
    task: Annotated[str | None, option("--task", "DATASET/OPTIMIZEE", TASK, complete_target)] = None,
    step: Annotated[int | None, number("--step", "N", "Inner step. Default: the last one of all.", minimum=0)] = None,
    radius: Annotated[
        float | None, number("--radius", "R", "Radius of sharpness. Default: the middle one.", "float", above=0)
    ] = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    device: Device = None,
    plugin: Plugins = None,
) -> None:
    """Draw runs side by side: runs that differ in the meta-seed alone are drawn as one, with intervals.

    The sentence for the caption goes to stderr, and into the file's metadata.
    """
    page.check_path(target)
    figures = tuple(dict.fromkeys(figure or ()))
    arms = group_arms(find_runs(references, runs_dir)[0])
    drawn: list[Block] = []
    surfaces: list[LandscapePanel] = []
    if figures != (LANDSCAPE,):
        measured = evaluated(arms, task, step, radius)
        if measured.damaged:
            output.say_damaged(measured.damaged)
        drawn = blocks(measured, figures)
    sentences = [block.caption for block in drawn]
    if LANDSCAPE in figures:
        # at any task and step, whether it was evaluated or not
        at_radius = evaluated(arms, radius=radius)
        where = pick_device(device or "auto")
        surfaces, caption = landscapes(at_radius, where, task=task, steps=step, data_dir=data_dir, report=output.say)
        sentences.append(caption)
    with page.styled():
        page.save(page.draw_page(drawn, surfaces), target, " ".join(sentences))
    print(present.clean(target, 4000))
    for sentence in sentences:
        output.say(sentence)
