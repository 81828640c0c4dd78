"""Where a run comes from: versions, machine and git revision, for run.json."""

from __future__ import annotations

import socket
import sys
from typing import Any


def describe() -> dict[str, Any]:
    """Facts of this process: versions, host, platform, git."""
    import platform

    return {
        "versions": _versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "git": _git_revision(),
    }


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in ("lreg", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _git_revision() -> str | None:
    """The commit checked out in the current folder, if it is in a git repository."""
    import subprocess

    command = ["git", "rev-parse", "--verify", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=2.0)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
