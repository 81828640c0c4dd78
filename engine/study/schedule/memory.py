"""Memory of this machine, as far as this process may use it: a container's limit counts, not only what the machine has.

Memory of GPUs is not looked at: without --jobs each has one run at a time, and with it a person has counted.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def _left_by_cgroups() -> Iterator[int]:
    """What each limit leaves, of this process's group and of those around it. Linux has them, in two versions.

    Files that need not stay in memory count as free.
    """
    for line in _text(OWN_CGROUPS).splitlines():  # 0::/group of version 2; 7:cpu,memory:/group of version 1
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root, (limit, used, cache) = (CGROUPS / "memory", V1) if controllers else (CGROUPS, V2)
        inside = PurePosixPath(group.lstrip("/"))
        # a container sees its own group as the root, whatever it is called outside
        for folder in (root / path for path in (inside, *inside.parents) if ".." not in path.parts):
            most, taken = (_text(folder / name).strip() for name in (limit, used))
            pairs = (line.split() for line in _text(folder / "memory.stat").splitlines())
            cached = next((pair[1] for pair in pairs if pair[:1] == [cache] and len(pair) == 2), "0")
            if all(text.isdecimal() for text in (most, taken, cached)):  # "max" is no number
                yield int(most) - int(taken) + int(cached)


def _text(path: Path) -> str:
    try:
        return read_limited(path).decode(errors="replace")
    except OSError:
        return ""
