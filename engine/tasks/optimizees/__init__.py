"""Optimizees: the networks that a learned optimizer trains, one file each."""
