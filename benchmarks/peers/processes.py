"""What a process and its descendants take, read from /proc: processor time, and memory without the page cache.

Memory is anonymous memory plus shared memory. Shared memory that one process maps is that process's; where several
map some, it is no more than their sum, and no more than what the whole machine's grew by, less the files that were
saved to tmpfs: a segment that two processes map is counted once.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MemorySample", "Watch", "children_cpu_s", "machine_cpu_s", "tree", "tree_cpu_s"]

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_REFRESH_S = 0.25


def tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - 50 times a second
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def tree_cpu_s() -> float:
    """Return the processor time of this process, its descendants, and those of them that have ended."""
    ticks = 0
    for pid in tree(os.getpid()):
        fields = _stat(pid)
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def children_cpu_s() -> float:
    """Return the processor time of this process's children that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine_cpu_s() -> float:
    """Return the processor time that the machine has spent on anything."""
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123 - as below
        user, nice, system, _idle, _wait, irq, softirq = (
            int(field) for field in file.readline().split()[1:8]
        )
    return (user + nice + system + irq + softirq) / _TICKS


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Bytes at a moment of the machine's monotonic clock."""

    at: float
    nbytes: int


class Watch:
    """Samples the memory of a process tree from outside.

    Args:
        root: the process.
        folder: where it saves, when that is memory itself.
    """

    def __init__(self, root: int, folder: Path | None = None) -> None:
        self._root = root
        self._folder = folder
        self._shared_before = _machine_shared()
        self._refreshed_at = 0.0
        self.pids: set[int] = set()
        self._living: list[int] = []
        self.samples: list[MemorySample] = []

    def sample(self) -> None:
        """Take one sample."""
        now = time.perf_counter()
        if now - self._refreshed_at > _REFRESH_S:
            self._living = tree(self._root)
            self.pids.update(self._living)
            self._refreshed_at = now
        own, shared = 0, []
        for pid in self._living:
            anonymous, mapped = _memory(pid)
            own += anonymous
            if mapped:
                shared.append(mapped)
        if len(shared) > 1:
            grown = _machine_shared() - self._shared_before - self._saved()
            shared = [max(*shared, min(sum(shared), grown))]
        self.samples.append(MemorySample(now, own + sum(shared)))

    def peak(self, start: float, end: float) -> int:
        """Return the most that was seen between two moments."""
        return max((sample.nbytes for sample in self.samples if start <= sample.at <= end), default=0)

    def last_before(self, moment: float) -> int:
        """Return what was seen last before a moment."""
        return next((sample.nbytes for sample in reversed(self.samples) if sample.at <= moment), 0)

    def _saved(self) -> int:
        if self._folder is None:
            return 0
        total = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                try:
                    total += (Path(folder) / name).stat().st_blocks * 512
                except FileNotFoundError:  # renamed meanwhile
                    continue
        return total


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name, from its state on; none when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _memory(pid: int) -> tuple[int, int]:
    own = shared = 0
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - 50 times a second
            for line in file:
                if line.startswith("RssAnon:"):
                    own = int(line.split()[1]) * 1024
                elif line.startswith("RssShmem:"):
                    shared = int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return own, shared


def _machine_shared() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - as above
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Shmem:")), 0)
