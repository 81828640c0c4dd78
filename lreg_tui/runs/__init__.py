"""Runs: the feed that watches them, their table, their metrics; the dashboard and the screen of one run."""
