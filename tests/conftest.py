"""Shared by all tests."""

from __future__ import annotations

from engine.device import wait_politely

wait_politely()  # before any test imports torch: tests often share their cores
