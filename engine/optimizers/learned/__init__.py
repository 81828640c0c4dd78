"""Learned optimizers, one file each."""
