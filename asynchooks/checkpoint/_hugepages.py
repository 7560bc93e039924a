"""Asks the kernel to back large memory with large pages: filling fresh memory then takes a fraction of the faults.

Measured on a restore from the page cache: 2.4 GB/s with small pages, 6 with large ones. A wish: where it cannot be
granted, nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

__all__ = ["advise", "libc"]

_LARGE_BYTES = 2 * 2**20


def advise(address: int, nbytes: int) -> None:
    """Wish for large pages in memory that was just allocated."""
    start = -(-address // _LARGE_BYTES) * _LARGE_BYTES
    end = (address + nbytes) // _LARGE_BYTES * _LARGE_BYTES
    if end > start and hasattr(mmap, "MADV_HUGEPAGE"):
        libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_HUGEPAGE)


@cache
def libc() -> Any:
    """The C library; its calls hold no GIL."""
    return ctypes.CDLL(None, use_errno=True)
