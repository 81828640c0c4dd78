"""Distributed: one run on many processes."""
