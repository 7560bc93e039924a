"""Copies that come as late as can be: what a test needs to see that nothing changes under them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from asynchooks.checkpoint._capture._overlap import shared_copies

__all__ = ["late_copies"]


@contextmanager
def late_copies(*, timeout_s: float = 30.0) -> Iterator[None]:
    """Have overlapped captures on the CPU copy nothing before a step waits for them: the worst timing there is.

    Whatever changes what a capture still has to read, without waiting, then changes it before it is read. What no
    step has waited for at the end of the block is copied there; whoever waits for a snapshot has to call
    `asynchooks.checkpoint.before_step` first.

    Args:
        timeout_s: a copy that no step waits for is made after so many seconds.
    """
    copies = shared_copies()
    outer = copies.hold

    def late(awaited: threading.Event) -> None:
        awaited.wait(timeout_s)

    copies.hold = late
    try:
        yield
    finally:
        copies.hold = outer
        copies.before_step()
