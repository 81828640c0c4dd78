"""Memory of this machine, as far as this process may use it: a container's limit counts, not only what the machine has.

Memory of GPUs is not looked at: without --jobs each has one run at a time, and with it a person has counted.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from engine.base.files import read_limited

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free() -> int:
    """Bytes that can still be taken: of the machine, and under every limit above this process."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_left_by_cgroups()]))


def resident(pid: int) -> int:
    """Bytes of a process of this host; 0 where it is not known."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except (psutil.Error, ValueError, OverflowError):
        return 0


def _left_by_cgroups() -> list[int]:
    """What each limit leaves, of this process's group and of those around it. Linux has them, in two versions."""
    try:
        lines = read_limited(OWN_CGROUPS).decode(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:  # 0::/group of version 2; 7:cpu,memory:/group of version 1
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            root, names = CGROUPS, V2
        elif "memory" in controllers.split(","):
            root, names = CGROUPS / "memory", V1
        else:
            continue
        inside = PurePosixPath(group.lstrip("/"))
        # a container sees its own group as the root, whatever it is called outside
        found += [_left(root / folder, *names) for folder in (inside, *inside.parents) if ".." not in folder.parts]
    return [left for left in found if left is not None]


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    """Bytes below a group's limit, files that need not stay in memory counted as free; None where it has no limit."""
    most, taken = _number(group / limit), _number(group / used)
    return None if most is None or taken is None else most - taken + _cached(group / "memory.stat", cache)


def _number(path: Path) -> int | None:
    try:
        return int(read_limited(path))  # "max" is no number
    except (OSError, ValueError):
        return None


def _cached(path: Path, name: str) -> int:
    try:
        pairs = [line.split() for line in read_limited(path).decode(errors="replace").splitlines()]
        return next((int(pair[1]) for pair in pairs if pair[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0
