"""The waits of the training thread: for its turn, for room, for the end; deferred foreground parts run meanwhile.

Everything that it waits for comes before its own place in program order. What comes after may be waiting for it:
a hook that fires, drains or reserves from inside a deferred method stands in the middle of the order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asynchooks.execution._critical import Critical
    from asynchooks.execution._ledger import Ledger
    from asynchooks.execution._part import Part
    from asynchooks.execution._parts import Parts
    from asynchooks.execution._plan import Step
    from asynchooks.execution._program_order import ProgramOrder
    from asynchooks.instrument import SpanKind

__all__ = ["Waits"]


class Waits:
    """Waits on the training thread. Every wait is a span."""

    def __init__(
        self,
        changed: Critical,
        parts: Parts,
        order: ProgramOrder,
        ledger: Ledger,
        run_foreground: Callable[[Part], None],
        *,
        captures_may_run: bool,
    ) -> None:
        self._changed = changed
        self._parts = parts
        self._order = order
        self._ledger = ledger
        self._run_foreground = run_foreground
        self._captures_may_run = captures_may_run

    def until(
        self,
        done: Callable[[], bool],
        kind: SpanKind,
        step: Step | None,
        deadline: float | None = None,
    ) -> bool:
        """Wait until ``done``, running deferred foreground parts that are due meanwhile.

        Returns False when ``deadline`` (`time.monotonic`) passed first.
        """
        mark = self._ledger.mark()
        waited_for = self._parts.names()
        try:
            while True:
                with self._changed:
                    if done():
                        return True
                    part = self._parts.pop_deferred(self._order.here, captures_may_run=self._captures_may_run)
                    if part is None:
                        remaining = None if deadline is None else deadline - time.monotonic()
                        if remaining is not None and remaining <= 0:
                            return False
                        self._changed.wait(remaining)
                        continue
                self._run_foreground(part)
        finally:
            self._ledger.waited(kind, step, mark, waited_for)

    def deferred(self) -> None:
        """Run the deferred foreground parts that are due, in program order."""
        here = self._order.here
        if self._parts.has_deferred(here):
            self.until(lambda: not self._parts.has_deferred(here), "barrier", None)

    def inline(self, step: Step) -> None:
        """Wait for everything up to here, as an inline run of the step's part would take: sync mode."""
        here = self._order.here
        self.until(lambda: not self._parts.any_touching(None, here), "barrier", step)

    def told(self) -> None:
        """Wait until nothing in flight will fire a point any more: who listens is about to change."""
        here = self._order.here
        if self._parts.any_firing(here) or self._parts.has_deferred(here):
            self.until(
                lambda: not self._parts.any_firing(here) and not self._parts.has_deferred(here),
                "barrier",
                None,
            )

    def idle(self, resources: Iterable[str] | None, deadline: float | None) -> bool:
        """Wait until nothing that touches ``resources`` is in flight; False if the deadline passed first."""
        names = None if resources is None else frozenset(resources)
        here = self._order.here
        return self.until(
            lambda: not self._parts.has_deferred(here) and not self._parts.any_touching(names, here),
            "drain",
            None,
            deadline,
        )
