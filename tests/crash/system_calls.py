"""What stands between a process and its files: calls are counted, and made to fail, by a library loaded before libc.

Compiled when it is first needed; tests skip where there is no C compiler. In the process itself `arm` and
`move_clock` switch it on.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

KILL, POWER_CUT = -1, -2
FOR_EVER = -1

SOURCE = Path(__file__).with_name("system_calls.c")


def compiled(target: Path) -> dict[str, str]:
    """Build the library; return the environment that loads it."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("there is no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(SOURCE), "-ldl"], check=True)
    return {"LD_PRELOAD": str(target)}


def find_compiler() -> str | None:
    """A C compiler's path."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def arm(folder: str, *, skip: int, action: int, times: int, tell: int = -1) -> None:
    """In the process itself: let so many calls under a folder pass, then fail so many.

    Args: action: an errno; `KILL` or `POWER_CUT`, of the ext4 file system that holds the folder. tell: each
        call is written to this descriptor, as a line.
    """
    _library().calls_arm(folder.encode(), skip, action, times, tell)


def disarm() -> None:
    """Let all calls pass."""
    _library().calls_disarm()


def move_clock(seconds: int) -> None:
    """Set the wall clock of this process, relative to the machine's."""
    _library().calls_move_clock(ctypes.c_longlong(seconds))


def plain(call: str, folder: str) -> str:
    """A call's name without what is random in it."""
    call = call.replace(folder.rpartition("/")[2], "folder")
    return re.sub(r"\.asynchooks-[0-9a-f]{32}\.tmp", "temporary file", call)


def _library() -> Any:
    return ctypes.CDLL(None)
