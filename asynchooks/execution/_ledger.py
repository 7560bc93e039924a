"""The books: counts and times per hook and point, and the spans told to the instrument.

Written under the flight's lock, except what only the training thread writes (invocations, captures, steps).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asynchooks.execution._statistics import Tally
from asynchooks.instrument import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.execution._plan import Step
    from asynchooks.instrument import Instrument, SpanKind

__all__ = ["Ledger"]


class Ledger:
    """Keeps a `Tally` per hook and point.

    Attributes:
        steps: training steps fired so far.
        drain_ns: time of the training thread in drains, and in waits that belong to no hook.
    """

    def __init__(self, instrument: Instrument | None, *, inline: bool) -> None:
        self.steps = 0
        self.drain_ns = 0
        self._instrument = instrument
        self._inline = inline
        self._tallies: dict[tuple[int, str], Tally] = {}

    def tally(self, step: Step) -> Tally:
        """Return the running counts of a hook at a point."""
        key = (step.registration.number, step.point)
        if key not in self._tallies:
            self._tallies[key] = Tally(step.registration.name, step.point)
        return self._tallies[key]

    def tallies(self) -> dict[tuple[int, str], Tally]:
        """Return all running counts, by registration number and point."""
        return dict(self._tallies)

    def waited(self, kind: SpanKind, step: Step | None, elapsed_ns: int) -> None:
        """Book a wait of the training thread."""
        if kind == "drain" or step is None:
            self.drain_ns += elapsed_ns
        elif kind == "backpressure":
            self.tally(step).backpressure_ns += elapsed_ns
        elif self._inline:
            self.tally(step).inline_ns += elapsed_ns
        else:
            self.tally(step).barrier_ns += elapsed_ns

    def record(self, kind: SpanKind, step: Step | None, start_ns: int, detail: Mapping[str, object]) -> None:
        """Tell the instrument of a span that ends now."""
        if self._instrument is not None:
            name = step.registration.name if step else "executor"
            point = step.point if step else ""
            end_ns = time.perf_counter_ns()
            self._instrument.record(Span(kind, name, point, start_ns, end_ns, self.steps, detail))
