"""Which process this is, and whether another one of this machine still runs.

Decides by what Linux tells: boot, process namespace and start time, so that neither a recycled process id nor a
container with the same host name misleads. Elsewhere, and about other machines, it answers "unknown".
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "is_running", "this_process", "writer_id"]

_writer: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Process:
    """A process.

    Attributes:
        host: its machine's name, for people.
        pid: its id there, for people.
        birth: boot, process namespace and start time; empty where the system does not tell.
    """

    host: str
    pid: int
    birth: str


def this_process() -> Process:
    """The calling process."""
    pid = os.getpid()
    birth, _ = _status(pid)
    return Process(socket.gethostname(), pid, birth)


def is_running(process: Process) -> bool | None:
    """Whether it runs; None when that cannot be known from here."""
    mine, _ = _status(os.getpid())
    if not mine or mine.rpartition("/")[0] != process.birth.rpartition("/")[0]:
        return None
    birth, state = _status(process.pid)
    return birth == process.birth and state not in ("Z", "X", "")


def writer_id() -> str:
    """An id of this process; a forked child has another one."""
    global _writer  # noqa: PLW0603 - one per process, like its id
    if _writer[0] != os.getpid():
        _writer = (os.getpid(), uuid.uuid4().hex)
    return _writer[1]


def _status(pid: int) -> tuple[str, str]:
    """Boot, process namespace and start time of a process, and its state's letter; empty when there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return f"{boot}/{namespace}/{fields[19]}", fields[0]
