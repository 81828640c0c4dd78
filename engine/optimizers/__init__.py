"""Optimizers: learned ones, one file each in `learned`, and hand-designed baselines."""
