"""What the figures were measured on, and what the kernel says about a process (Linux: read from /proc)."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("kato", "fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "msgspec", "numpy")
_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """The hardware and the software of this run."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory_mib": int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "simd": _simd(),
        "load_average": load_average(),
    }


def headline(facts: dict[str, Any]) -> str:
    """The same in one line for people."""
    return (
        f"KATO {facts['packages']['kato']}, Python {facts['python']}, {facts['cpu']} x {facts['cores']}, "
        f"{facts['memory_mib']} MiB, kernel {facts['kernel']}, SIMD {facts['simd']}, "
        f"load average {' '.join(map(str, facts['load_average']))}"
    )


def load_average() -> list[float]:
    """How many tasks wanted a processor during the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still run."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process have used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and its own (not a mapped file)."""
    # `statm` is cheap but batches its counters per thread; the rollup counts pages.
    rollup = _field(f"/proc/{pid}/smaps_rollup", "Anonymous")
    if rollup is not None:
        return int(rollup.split()[0]) * 1024
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes(pid: int) -> int:
    """The most memory the process ever held in RAM."""
    return int((_field(f"/proc/{pid}/status", "VmHWM") or "0 kB").split()[0]) * 1024


def _field(path: str, name: str) -> str | None:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "not installed"


def _simd() -> str:
    with contextlib.suppress(ImportError):
        from kato import _core

        return _core.simd()
    return "no compiled core"
