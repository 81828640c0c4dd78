"""Estimators of the meta-gradient, one file each."""

from engine.meta_training.estimators.base import ESTIMATORS, GradientEstimator, get

__all__ = ["ESTIMATORS", "GradientEstimator", "get"]
