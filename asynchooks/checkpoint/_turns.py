"""One after the other, in the order in which they came: on one event loop, on several, on threads without one.

Decides that who waits holds a worker thread of its own, none of those that the one whose turn it is needs, and lets
it go when it is cancelled. `anyio.Lock` serves one event loop alone, and each ``save_sync`` runs its own.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel
from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Turns"]


class Turns:
    """Who comes `take`s one. Any event loop, any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for one's turn, and have it until the end of the block. Cancelled meanwhile, it leaves the queue."""
        await anyio.lowlevel.checkpoint()
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
            is_first = self._queue[0] is mine
        try:
            if not is_first:
                await to_thread.run_sync(mine.wait, abandon_on_cancel=True, limiter=CapacityLimiter(1))
            yield
        finally:
            mine.set()  # for the thread that a cancelled one leaves waiting
            with self._lock:
                self._queue.remove(mine)
                if self._queue:
                    self._queue[0].set()
