"""The log as a text file: the lines as they stand on the terminal, with the time.

Appends one entry at a time, and every line is with the operating system when its write returns: whatever ends the
run, what was written stays readable. Runs in the background only; order is the caller's.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiofiles
import anyio

__all__ = ["TextLines"]


class TextLines:
    """A text file to which whole lines are appended.

    Opened for the first line, and again after `close`; one that nobody closes is closed when it is collected.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._closing: Callable[[], object] | None = None

    async def write(self, text: str) -> None:
        """Append lines."""
        if self._file is None:
            await anyio.Path(self._path.parent).mkdir(parents=True, exist_ok=True)
            self._file = await aiofiles.open(self._path, "a", buffering=1, encoding="utf-8")
            self._closing = weakref.finalize(self, self._file._file.close)  # noqa: SLF001 - the plain file inside
        now = time.strftime("%Y/%m/%d %H:%M:%S")
        await self._file.write("".join(f"{now} {line}\n" for line in text.splitlines()))

    async def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._closing is not None:
            await anyio.to_thread.run_sync(self._closing)
            self._file = self._closing = None
