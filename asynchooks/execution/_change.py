"""Copies that a capture leaves under way, and the barrier before anything changes what they read.

Decides when the training thread must wait for such a copy: before the next foreground part of a hook that may
change training state. Knows no tensor: what is waited for, and how, is the callback's.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynchooks.execution._ledger import Ledger
    from asynchooks.execution._plan import Step

__all__ = ["ChangeBarrier", "ChangeBarriers"]


class ChangeBarrier:
    """One callback that is called once, before training state changes; see `HookExecutor.before_next_change`."""

    def __init__(
        self, callback: Callable[[], None], step: Step | None, ledger: Ledger, owner: ChangeBarriers
    ) -> None:
        self.callback = callback
        self._step = step
        self._ledger = ledger
        self._owner = owner
        self._thread = get_ident()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Book a wait as exposed time of the capture that set the barrier. Called on the thread that waits.

        A wait on another thread than the training's (autograd's, say) is not the training thread's time.
        """
        if get_ident() != self._thread:
            yield
            return
        mark = self._ledger.mark()
        try:
            yield
        finally:
            self._ledger.waited("stage", self._step, mark, ("copy",))

    def lift(self) -> None:
        """Take the barrier away: there is nothing to wait for any more. Called on any thread; idempotent."""
        self._owner.discard(self)


class ChangeBarriers:
    """The barriers that stand now. Hooks pass them on the training thread; they are lifted on any thread."""

    def __init__(self, ledger: Ledger) -> None:
        self.standing: tuple[ChangeBarrier, ...] = ()
        self._ledger = ledger
        self._lock = threading.Lock()

    def add(self, callback: Callable[[], None], step: Step | None) -> ChangeBarrier:
        """Put up a barrier, for the capture of this step."""
        barrier = ChangeBarrier(callback, step, self._ledger, self)
        with self._lock:
            self.standing = (*self.standing, barrier)
        return barrier

    def discard(self, barrier: ChangeBarrier) -> None:
        """Forget a barrier."""
        with self._lock:
            self.standing = tuple(each for each in self.standing if each is not barrier)

    def wait_passed(self) -> None:
        """Call every callback; the barriers are gone then. Called on the training thread; blocks."""
        while self.standing:
            first, *_ = self.standing
            first.callback()
            self.discard(first)
