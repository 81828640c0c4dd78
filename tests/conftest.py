"""Shared by all tests."""

from __future__ import annotations

import os
import signal
import time

from engine.device import wait_politely

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background: what it starts would be deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["TZ"] = "UTC"  # by whose clock times are shown
time.tzset()
wait_politely()  # before any test imports torch: tests often share their cores
