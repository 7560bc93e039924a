"""Where a measurement was taken: the machine, the versions and the day, for every table and JSON file."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from asynchooks._version import __version__

__all__ = ["describe_environment", "environment_line"]


def describe_environment(*packages: str) -> dict[str, str]:
    """Return the machine, Python, the packages' versions and the date, as plain strings."""
    environment = {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d"),
        "machine": f"{_cpu_count()} cores, {_cpu_model()}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in packages:
        if package == "asynchooks":  # known also where it runs from its source tree
            environment[package] = __version__
            continue
        try:
            environment[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            environment[package] = "not installed"
    return environment


def environment_line(environment: dict[str, str]) -> str:
    """Return an environment as one line for a table's caption."""
    fixed = ("date", "machine", "system", "python")
    packages = ", ".join(f"{name} {version}" for name, version in environment.items() if name not in fixed)
    line = (
        f"{environment['date']}, {environment['machine']}, {environment['system']}, "
        f"Python {environment['python']}"
    )
    return f"{line}, {packages}" if packages else line


def _cpu_count() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
