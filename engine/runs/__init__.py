"""Runs: a run's folder, its writer and its readers; the store of all runs."""
