"""Reading a local file past the page cache, where the cache does not hold it yet.

Decides between the two for every range: what is cached comes from the cache at the speed of memory; what is not
comes from the disk by O_DIRECT, through a few warm pages, since destinations are not aligned as that wants. Where
several ranks of a machine read the same file they fill the cache instead, so that the disk is read once:
`LOCAL_WORLD_SIZE`, which torchrun sets, tells.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING

from asynchooks.checkpoint._storage._store import scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_uncached"]

_BLOCK_BYTES = 4096
_PAGES_BYTES = 4 * 2**20
_LEAST_BYTES = 2**20
_NOT_HERE = {errno.EAGAIN, errno.EINVAL, errno.EOPNOTSUPP}


def read_uncached(descriptor: int, offset: int, buffers: Sequence[memoryview]) -> int:
    """Fill the buffers from the disk if the page cache lacks them; 0 where an ordinary read serves better."""
    nbytes = sum(buffer.nbytes for buffer in buffers)
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if nbytes < _LEAST_BYTES or ranks != "1" or not hasattr(os, "O_DIRECT") or _is_cached(descriptor, offset):
        return 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        return _read(descriptor, offset, nbytes, list(buffers))
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return 0  # a file system that has no such reads, or wants larger blocks
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) >= 0
    except OSError as error:
        return error.errno != errno.EAGAIN  # a file system that cannot say is read as ever


def _read(descriptor: int, offset: int, nbytes: int, buffers: list[memoryview]) -> int:
    pages = memoryview(_own.pages())
    filled = 0
    while filled < nbytes:
        skew = (offset + filled) % _BLOCK_BYTES
        wanted = min(_PAGES_BYTES, -(-(skew + nbytes - filled) // _BLOCK_BYTES) * _BLOCK_BYTES)
        nread = os.preadv(descriptor, [pages[:wanted]], offset + filled - skew)
        piece = pages[skew : min(nread, skew + nbytes - filled)]
        if not piece.nbytes:
            break
        scatter(piece, buffers)
        filled += piece.nbytes
        buffers = _left(buffers, piece.nbytes)
        if nread < wanted:
            break  # the end of the file
    return filled


def _left(buffers: list[memoryview], done: int) -> list[memoryview]:
    """The buffers without their first so many bytes."""
    for index, buffer in enumerate(buffers):
        if buffer.nbytes > done:
            return [buffer[done:], *buffers[index + 1 :]]
        done -= buffer.nbytes
    return []


class _Own(threading.local):
    """Pages of one thread, warm after the first use."""

    def __init__(self) -> None:
        self._pages: mmap.mmap | None = None

    def pages(self) -> mmap.mmap:
        if self._pages is None:
            self._pages = mmap.mmap(-1, _PAGES_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return self._pages


_own = _Own()
