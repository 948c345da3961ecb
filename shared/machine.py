"""Memory and cores of this machine, or of its container."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def memory_limit() -> int:
    """Bytes this process may use: the machine's memory, or the cgroup's limit where that is lower (containers)."""
    limit = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return limit


def free_memory() -> int:
    """Bytes this process could still take. The system's cache of files counts as free."""
    return min(psutil.virtual_memory().available, memory_limit() - psutil.Process().memory_info().rss)


def usable_cores() -> int:
    """Cores this process may run on; a container's CPU quota counts."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows have none
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores
