"""What this process takes of its machine."""

from __future__ import annotations

import os
import resource

_CONTAINER_LIMIT = "/sys/fs/cgroup/memory.max"


def memory_share() -> float:
    """What part of the memory this process may have it holds: the container's limit, or the machine's memory."""
    most = physical_memory()
    try:
        with open(_CONTAINER_LIMIT, "rb") as figure:
            limit = figure.read().strip()
    except OSError:
        limit = b"max"
    return memory_bytes() / (min(most, int(limit)) if limit.isdigit() else most)


def physical_memory() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_bytes() -> int:
    """Resident bytes now, or the highest ever where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as figures:
            return int(figures.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
