"""Comparison of runs: arms, tables of their transfer evaluations, paired differences, the scale frontier.

Pure functions over RunReader, without torch; numpy and scipy are imported where they are needed.
"""

from __future__ import annotations

from engine.comparison.arms import Arm, ArmRun, SettingsTable, group_arms, reference_arm, settings_table
from engine.comparison.evaluations import NORMALISED, Figure, Outcome
from engine.comparison.outcomes import Entry, TaskOutcomes, collect, radii_of
from engine.comparison.paired import Effect, effects, effects_against
from engine.comparison.report import Comparison, RunFigures, compare, run_figures
from engine.comparison.statistics import Cell, Interval, cell, holm, t_interval, verdict
from engine.comparison.tables import Row, Table, last_common_step, table

__all__ = [
    "NORMALISED",
    "Arm",
    "ArmRun",
    "Cell",
    "Comparison",
    "Effect",
    "Entry",
    "Figure",
    "Interval",
    "Outcome",
    "Row",
    "RunFigures",
    "SettingsTable",
    "Table",
    "TaskOutcomes",
    "cell",
    "collect",
    "compare",
    "effects",
    "effects_against",
    "group_arms",
    "holm",
    "last_common_step",
    "radii_of",
    "reference_arm",
    "run_figures",
    "settings_table",
    "t_interval",
    "table",
    "verdict",
]
