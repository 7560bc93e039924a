"""A copy of the log files on another store, brought up to date while the run goes on.

A run that is killed leaves its logs there up to the last copy. Whole files are copied, those that have changed; each
appears whole or stays as it was. A store that fails is left in peace for a while, so that log lines do not queue up
behind it. Not for two threads at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._storage import open_store

__all__ = ["Mirror"]

_DEADLINE_S = 30.0
_REST_INTERVALS = 10
_GROWING = (
    ".json",
    ".log",
)  # files of lines: one that was taken away and is begun anew goes on where it ended


class Mirror:
    """Copies the log files below a folder to a store.

    Args:
        out_dir: folder or URL.
        suffixes: endings of the files that are copied.
        options: fsspec's options for the store.
        keep_local: whether `finish` leaves the local files.
        interval_s: seconds between two copies.

    Raises:
        ConfigError: the store's kind or an option is unknown.
    """

    def __init__(
        self,
        out_dir: str,
        *,
        suffixes: tuple[str, ...],
        options: Mapping[str, Any],
        keep_local: bool,
        interval_s: float,
    ) -> None:
        open_store(out_dir, options)  # opens no connection, but knows a wrong option
        self._out_dir = out_dir.rstrip("/")
        self._suffixes = suffixes
        self._options = options
        self._keep_local = keep_local
        self._interval_s = interval_s
        self._copied: dict[Path, tuple[int, int]] = {}
        self._removed: set[Path] = set()
        self._earlier: dict[Path, bytes] = {}
        self._due = 0.0

    async def copy_if_due(self, log_dir: Path, run: str) -> None:
        """Copy what has changed, unless the last copy is recent."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._interval_s * _REST_INTERVALS
            await anyio.to_thread.run_sync(self._copy, log_dir, run)
            self._due = now + self._interval_s

    async def finish(self, log_dir: Path, run: str, logger: logging.Logger) -> None:
        """Copy what has changed; then remove the local files, where they are not to be kept."""
        await anyio.to_thread.run_sync(self.finish_sync, log_dir, run, logger)

    def finish_sync(self, log_dir: Path, run: str, logger: logging.Logger) -> None:
        """`finish`, on the caller's thread."""
        self._copy(log_dir, run)
        if not self._keep_local:
            self._remove(log_dir, logger)

    def _copy(self, log_dir: Path, run: str) -> None:
        for path in self._files(log_dir):
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if self._copied.get(path) != version:
                folder = "/".join((self._out_dir, run, *path.relative_to(log_dir).parent.parts))
                store = open_store(folder, self._options, deadline_s=_DEADLINE_S, writer="thread")
                if path in self._removed:
                    self._earlier[path] = b"".join(bytes(piece) for piece in store.read(path.name))
                    self._removed.remove(path)
                store.put(path.name, Content.of(self._earlier.get(path, b""), path.read_bytes()))
                self._copied[path] = version

    def _remove(self, log_dir: Path, logger: logging.Logger) -> None:
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            if Path(handler.baseFilename).is_relative_to(log_dir.absolute()):
                logger.removeHandler(handler)
                handler.close()
        for path in self._files(log_dir):
            path.unlink()
            self._copied.pop(path, None)
            if path.suffix in _GROWING:
                self._removed.add(path)

    def _files(self, log_dir: Path) -> list[Path]:
        return [p for p in sorted(log_dir.rglob("*")) if p.is_file() and p.name.endswith(self._suffixes)]
