"""The machine, as far as figures depend on it."""

from __future__ import annotations

import os
import platform
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, memory, system, and how busy it is."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(_kib("MemTotal") / (1 << 20)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def available_bytes() -> int:
    """Memory that could be had; 0 where that cannot be told."""
    return _kib("MemAvailable") << 10


def _kib(name: str) -> int:
    return int((_field("/proc/meminfo", name) or "0").split()[0])


def _field(path: str, name: str) -> str | None:
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else None
