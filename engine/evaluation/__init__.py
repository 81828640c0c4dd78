"""Evaluation: frozen optimizers on fresh optimizees, baselines tuned, landscapes."""
