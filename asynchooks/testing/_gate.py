"""A gate for background parts: holds them until a test opens it, without sleeping."""

from __future__ import annotations

import threading

import anyio

__all__ = ["Gate"]


class Gate:
    """Closed at first. `wait` holds a background part; `open` lets it go, from any thread.

    Args:
        timeout_s: a test that forgets to open the gate fails after this many seconds instead of hanging.
    """

    def __init__(self, *, timeout_s: float = 30.0) -> None:
        self._event = threading.Event()
        self._reached = threading.Event()
        self._timeout_s = timeout_s

    def open(self) -> None:
        """Let everyone through, now and later."""
        self._event.set()

    def wait_reached(self) -> None:
        """Block the calling thread until a background part stands at the gate."""
        if not self._reached.wait(self._timeout_s):
            raise TimeoutError("no background part has reached the gate")

    async def wait(self) -> None:
        """Wait in a background part until the gate is open; gives up when the part is cancelled."""
        self._reached.set()
        if not await anyio.to_thread.run_sync(self._event.wait, self._timeout_s, abandon_on_cancel=True):
            raise TimeoutError("the gate was never opened")
