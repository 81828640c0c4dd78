"""Where a run comes from: versions, machine and git revision, for run.json."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from engine.base import plugins
from engine.base.errors import printable


def describe() -> dict[str, Any]:
    """Facts of this process: versions, host, platform, processor, git, plug-ins."""
    import platform

    return {
        "versions": _versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "git": _git_revision(),
        "plugins": [plugin.facts() for plugin in plugins.in_use()],
    }


def machine_of(facts: Mapping[str, Any]) -> str:
    """The processor that a run.json tells of, which names no host; "" where it is of before that was recorded.

    One of this very host is looked up: it has the host's name and system.
    """
    told = facts.get("cpu")
    if isinstance(told, str):
        return told
    import platform

    is_here = (facts.get("host"), facts.get("platform")) == (socket.gethostname(), platform.platform())
    return cpu_model() if is_here else ""


def system_of(facts: Mapping[str, Any]) -> str:
    """The system that a run.json tells of, without the build of its kernel, which may name the host's owner."""
    told = facts.get("platform")
    return re.sub(r"^Linux-.*-(\w+)-with-", r"Linux-\1-with-", told) if isinstance(told, str) else ""


@cache
def cpu_model() -> str:
    """The processor's name: "Intel(R) Xeon(R) Platinum 8488C"; of what says none, the architecture."""
    import platform
    import subprocess

    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=2.0).stdout.strip()
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        named = None
    return named[1].strip() if named else platform.machine()


def plugin_remark(facts: Mapping[str, Any]) -> str:
    """What differs between the plug-ins that a run.json records and those in use now; "" for nothing."""
    missing, changed = plugins.changes(facts.get("plugins"))
    remarks = [f"it used the plug-in {name}, which is not in use now (give it as --plugin)" for name in missing]
    remarks += [f"its plug-in {name} was another one before" for name in changed]
    return printable("; ".join(remarks))


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
        answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=2.0)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
