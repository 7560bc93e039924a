"""A file that is only ever appended to, one whole record at a time.

Every record is with the operating system when its write returns: whatever ends the run, what was written stays
readable. One open file, not one opening per record.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["AppendFile"]


class AppendFile:
    """Opens its file for the first record, again after `close`, and again when somebody has removed it.

    One that nobody closes is closed when it is collected. Not for two threads at once.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: BinaryIO | None = None
        self._closing: Callable[[], object] | None = None

    def write(self, record: bytes) -> None:
        """Append one record; returns when the operating system has it."""
        if self._file is not None and not os.fstat(self._file.fileno()).st_nlink:
            self.close()  # removed, as a log that is kept elsewhere is: the next record starts a new one
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._closing = weakref.finalize(self, self._file.close)
        self._file.write(record)
        self._file.flush()

    def flush(self) -> None:
        """Nothing is held back between two records."""

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        if self._closing is not None:
            self._closing()
            self._file = self._closing = None
