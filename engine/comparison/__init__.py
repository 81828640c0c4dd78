"""Comparison of runs: arms, tables of their transfer evaluations, paired differences, the scale frontier.

Pure functions over RunReader, without torch; numpy and scipy are imported where they are needed.
"""

from __future__ import annotations

from engine.comparison.arms import Arm, ArmRun, ControlArm, controls, group_arms, reference_arm, settings_table
from engine.comparison.outcomes import TaskOutcomes, TaskResult, Variant, collect, radii_of
from engine.comparison.paired import Effect, effects, effects_against
from engine.comparison.report import Comparison, ComparisonRow, ComparisonTable, compare, last_common_step, notes, table
from engine.comparison.statistics import Interval, holm, t_interval, verdict
from engine.runs.evaluations import NORMALISED, MetricAt, OptimizeeOutcome

__all__ = [
    "NORMALISED",
    "Arm",
    "ArmRun",
    "Comparison",
    "ControlArm",
    "Effect",
    "TaskResult",
    "Interval",
    "MetricAt",
    "OptimizeeOutcome",
    "ComparisonRow",
    "ComparisonTable",
    "TaskOutcomes",
    "Variant",
    "collect",
    "compare",
    "controls",
    "effects",
    "effects_against",
    "group_arms",
    "holm",
    "last_common_step",
    "notes",
    "radii_of",
    "reference_arm",
    "settings_table",
    "t_interval",
    "table",
    "verdict",
]
