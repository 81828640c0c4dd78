"""Comparisons of runs: as tables for both programs, as a screen, and as files."""
