"""Host memory for captures: warm, page-aligned, used again.

Decides which memory a capture copies into. A slab that was written before takes a copy at the speed of memory;
a new one costs ten to fifty times that in page faults, so slabs are kept for the next capture. A slab goes back
by itself when nothing refers to its memory any more: neither a snapshot's tensors nor a buffer on its way to a
store. Knows neither tensors' meaning nor files.

Memory is private, in large pages: O_DIRECT writes it twice as fast as small ones, for a fifth of the processor
time. Where another process is to write it to a store, it is a memfd, which has small pages nearly everywhere.
Either way a forked child (a data-loader worker) never makes it cold: a private slab is not there in the child.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from asynchooks.checkpoint._hugepages import libc
from asynchooks.errors import CaptureError

if TYPE_CHECKING:
    import numpy.typing as npt

    from asynchooks.checkpoint._capture._pinned import Pinned

__all__ = ["Place", "Staging", "shared_staging"]

_ROUND_BYTES = 2 * 2**20
_PROT_NONE, _MAP_FIXED = 0, 0x10
_NO_MEMORY = {errno.ENOMEM, errno.ENOSPC, errno.EFAULT}
_MADV_POPULATE_WRITE = 23  # Linux 5.14; a kernel without it says so, and the copy then takes the page faults
_IDLE_LEASES = 8


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Slab:
    """A mapping, of a memfd where `descriptor` is not -1. `used_at` counts leases."""

    descriptor: int
    mapping: mmap.mmap
    nbytes: int
    used_at: int = 0
    pinned: Pinned | None = None
    memory: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.memory = np.frombuffer(self.mapping, np.uint8)

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data)

    @property
    def is_shared(self) -> bool:
        return self.descriptor >= 0

    def __del__(self) -> None:
        if self.pinned is not None:
            self.pinned.release()
        if self.descriptor >= 0:
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """Where memory lies for another process: a descriptor to hand over, and the offset in it."""

    descriptor: int
    offset: int


class Staging:
    """A pool of slabs. Any thread may lease; memory comes back on whichever thread drops it last.

    Args:
        keep: how many unused slabs stay warm at most.
    """

    def __init__(self, *, keep: int = 2) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._preparing = threading.Lock()
        self._free: list[_Slab] = []
        self._returned: deque[_Slab] = deque()  # filled by finalizers, which must not take the lock
        self._leased: weakref.WeakValueDictionary[int, _Slab] = weakref.WeakValueDictionary()
        self._leases = 0
        self._is_shared = False
        self._owner = os.getpid()

    def share(self) -> None:
        """From now on lease memory that another process can map: called when one is there that will."""
        with self._lock:
            self._is_shared = hasattr(os, "memfd_create")

    def lease(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory of `nbytes`, its first byte at the start of a page; what it holds is undefined.

        It is the caller's until neither the array nor anything made from it (views, memoryviews, storages) is
        alive.

        Raises:
            CaptureError: the machine has no memory left for it.
        """
        with self._lock:
            self._collect()
            self._leases += 1
            fitting = [slab for slab in self._free if slab.nbytes >= nbytes]
            if fitting:
                slab = min(fitting, key=lambda slab: slab.nbytes)
                self._free.remove(slab)
            else:
                self._free.clear()  # too small for what is needed now
                slab = _new_slab(nbytes, is_shared=self._is_shared)
            slab.used_at = self._leases
            memory = np.frombuffer(slab.mapping, np.uint8, count=nbytes)
            self._leased[slab.address] = slab
            weakref.finalize(memory, self._returned.append, slab).atexit = False
            return memory

    def prepare(self, nbytes: int) -> None:
        """Make memory of `nbytes` warm, so that the next capture finds it. Blocks; holds no GIL meanwhile."""
        with self._preparing:  # two that ask at once want one slab
            with self._lock:
                self._collect()
                if any(slab.nbytes >= nbytes for slab in self._free):
                    return
            slab = _new_slab(nbytes, is_shared=self._is_shared)
            with self._lock:
                slab.used_at = self._leases
                self._free.append(slab)

    def place_of(self, buffer: memoryview) -> Place | None:
        """Where leased memory lies for another process; None for memory that is not of this pool."""
        address = np.frombuffer(buffer, np.uint8).ctypes.data
        with self._lock:
            for start, slab in self._leased.items():
                if slab.is_shared and start <= address < start + slab.nbytes:
                    return Place(slab.descriptor, address - start)
        return None

    def pin(self, memory: npt.NDArray[np.uint8]) -> bool:
        """Register leased memory with CUDA, so that a device copies into it by itself; whether that is so now.

        It stays registered for as long as its slab is kept.
        """
        with self._lock:
            slab = self._leased.get(int(memory.ctypes.data))
            if slab is None:
                return False
            if slab.pinned is None:
                from asynchooks.checkpoint._capture._pinned import (
                    Pinned,  # torch: only who captures from CUDA has it
                )

                slab.pinned = Pinned.of(slab.address, slab.nbytes)
            return slab.pinned.is_registered

    @property
    def free_bytes(self) -> int:
        """Bytes that are kept warm and unused."""
        with self._lock:
            self._collect()
            return sum(slab.nbytes for slab in self._free)

    def _collect(self) -> None:
        """Take back what came back, and let go what was not used for long."""
        if self._owner != os.getpid():  # a forked child: these are its parent's
            self._owner = os.getpid()
            self._free.clear()
            self._returned.clear()
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free = [
            slab
            for slab in self._free
            if self._leases - slab.used_at < _IDLE_LEASES and slab.is_shared == self._is_shared
        ]
        self._free.sort(key=lambda slab: slab.used_at)
        del self._free[: max(0, len(self._free) - self._keep)]


_SHARED = Staging()


def shared_staging() -> Staging:
    """The pool of this process, which all captures share."""
    return _SHARED


def _new_slab(nbytes: int, *, is_shared: bool) -> _Slab:
    size = max(1, -(-nbytes // _ROUND_BYTES)) * _ROUND_BYTES
    try:
        slab = _shared_slab(size) if is_shared else _private_slab(size)
        _populate(slab)
    except OSError as error:
        if error.errno not in _NO_MEMORY:
            raise
        raise CaptureError(
            f"no memory for a copy of {nbytes} bytes of state ({error.strerror}). Give the job more memory, or "
            "lower the executor's staging_budget so that fewer saves are in flight at once."
        ) from error
    return slab


def _shared_slab(size: int) -> _Slab:
    descriptor = os.memfd_create("asynchooks-staging", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        return _Slab(descriptor, mmap.mmap(descriptor, size), size)
    except BaseException:
        os.close(descriptor)
        raise


def _private_slab(size: int) -> _Slab:
    slab = _Slab(-1, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), size)
    if hasattr(mmap, "MADV_DONTFORK"):
        slab.mapping.madvise(mmap.MADV_DONTFORK)
        _private.add(slab)
    return slab


def _populate(slab: _Slab) -> None:
    """Fault all pages in by one call, which holds no GIL (mmap's own method would)."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without large pages
            slab.mapping.madvise(mmap.MADV_HUGEPAGE)
        place = ctypes.c_void_p(slab.address), ctypes.c_size_t(slab.nbytes)
        failed = libc().madvise(*place, _MADV_POPULATE_WRITE)
        if failed and ctypes.get_errno() in _NO_MEMORY:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_private: weakref.WeakSet[_Slab] = weakref.WeakSet()


def _fill_the_holes() -> None:
    """In a forked child: keep the addresses of private slabs taken.

    They are not mapped there, but this process still believes to own them: what was mapped there by chance would be
    unmapped with them. Whoever reads a snapshot in the child gets a segmentation fault, and not other bytes.
    """
    for slab in list(_private):
        place = ctypes.c_void_p(slab.address), ctypes.c_size_t(slab.nbytes)
        libc().mmap(
            *place, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, ctypes.c_long(0)
        )


if hasattr(mmap, "MADV_DONTFORK"):
    os.register_at_fork(after_in_child=_fill_the_holes)
