"""How a content's buffers reach a file of a local disk: past the page cache where that works, through it elsewhere.

Decides the size and the alignment of writes. O_DIRECT writes twice as fast as write and fsync through the page
cache, and leaves the cache to the training data, but only takes whole pages of memory at page offsets of the file:
what does not lie so goes through a small aligned buffer. Every call is large and releases the GIL.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._storage._store import Progress

__all__ = ["write_content"]

_WRITE_BYTES = 32 * 2**20
_DIRECT_BYTES = 4 * 2**20  # a smaller file is not worth the alignment
_BOUNCE_BYTES = 4 * 2**20
_BLOCK = 4096


def write_content(descriptor: int, content: Content, progress: Progress) -> None:
    """Write the content to an empty file. Its data may still be on its way to the disk: fsync follows."""
    file = _File(descriptor, progress)
    if content.nbytes >= _DIRECT_BYTES:
        file.go_direct()
    for buffer in content.buffers:
        file.write(buffer)
    file.finish(content.nbytes)


class _File:
    """Appends buffers; `_bounce` gathers what is not aligned. All full writes start and end at blocks."""

    def __init__(self, descriptor: int, progress: Progress) -> None:
        self._descriptor = descriptor
        self._progress = progress
        self._position = 0
        self._is_direct = False
        self._bounce = memoryview(mmap.mmap(-1, _BOUNCE_BYTES))
        self._gathered = 0

    def go_direct(self) -> None:
        """Leave the page cache out, where the file system can."""
        self._is_direct = _set_direct(self._descriptor, is_direct=True)

    def write(self, view: memoryview) -> None:
        """Append a buffer."""
        while view.nbytes:
            if not self._gathered and view.nbytes >= _BLOCK and self._takes(view):
                nbytes = min(view.nbytes // _BLOCK * _BLOCK, _WRITE_BYTES)
                self._write_out(view[:nbytes])
            else:
                nbytes = self._gather(view)
            view = view[nbytes:]

    def finish(self, nbytes: int) -> None:
        """Write what is left, and cut the file where the content ends."""
        if self._gathered:
            rest, self._gathered = self._gathered, 0
            whole = -(-rest // _BLOCK) * _BLOCK if self._is_direct else rest
            self._write_out(self._bounce[:whole], counted=rest)
        if self._position != nbytes:
            os.ftruncate(self._descriptor, nbytes)

    def _takes(self, view: memoryview) -> bool:
        return not self._is_direct or not _address(view) % _BLOCK

    def _gather(self, view: memoryview) -> int:
        """Copy the first bytes of a buffer to the bounce buffer: up to where the rest can be written directly."""
        room = _BOUNCE_BYTES - self._gathered
        to_block = -self._gathered % _BLOCK
        if not (_address(view) + to_block) % _BLOCK and view.nbytes >= to_block + _BLOCK:
            room = min(room, to_block)
        nbytes = min(room, view.nbytes)
        start = self._gathered
        np.copyto(
            np.frombuffer(self._bounce[start : start + nbytes], np.uint8),
            np.frombuffer(view[:nbytes], np.uint8),
        )
        self._gathered += nbytes
        is_next_direct = nbytes < view.nbytes
        if self._gathered == _BOUNCE_BYTES or (is_next_direct and not self._gathered % _BLOCK):
            gathered, self._gathered = self._gathered, 0
            self._write_out(self._bounce[:gathered])
        return nbytes

    def _write_out(self, view: memoryview, *, counted: int | None = None) -> None:
        total = view.nbytes
        while view.nbytes:
            try:
                written = os.pwrite(self._descriptor, view, self._position)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._is_direct = not _set_direct(self._descriptor, is_direct=False)
                if self._is_direct:
                    raise
                continue
            self._position += written
            view = view[written:]
        self._progress(total if counted is None else counted)


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _set_direct(descriptor: int, *, is_direct: bool) -> bool:
    """Turn O_DIRECT on or off; whether that could be done."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return not is_direct
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | flag if is_direct else flags & ~flag)
    except OSError:
        return False
    return True
