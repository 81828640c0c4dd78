"""Shared by all tests."""

from __future__ import annotations

import signal

from engine.device import wait_politely

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background: what it starts would be deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
wait_politely()  # before any test imports torch: tests often share their cores
