"""The books: counts and times per hook and point, and the spans told to the instrument.

Every nanosecond of the training thread is booked once: what happens inside a capture or a wait (a nested capture,
a wait for room) is the inner one's alone. Written under the flight's lock, except what only the training thread
writes (invocations, captures, waits, steps).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from asynchooks.execution._statistics import Tally
from asynchooks.instrument import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynchooks.execution._plan import Step
    from asynchooks.instrument import Instrument, SpanKind

__all__ = ["Ledger", "Mark"]

logger = logging.getLogger(__name__)


class Mark(NamedTuple):
    """When a piece of work began: the time, the training step, and what was booked as exposed by then."""

    start_ns: int
    step: int
    exposed_ns: int


class Ledger:
    """Keeps a `Tally` per hook and point.

    Attributes:
        steps: training steps fired so far.
        drain_ns: time of the training thread in drains, and in waits that belong to no hook.
        exposed_ns: all time of the training thread that is booked so far.
    """

    def __init__(self, instrument: Instrument | None, *, inline: bool) -> None:
        self.steps = 0
        self.drain_ns = 0
        self.exposed_ns = 0
        self._instrument = instrument
        self._instrument_has_failed = False
        self._inline = inline
        self._tallies: dict[tuple[int, str], Tally] = {}
        self._of_step: dict[Step, Tally] = {}  # the same ones; a plan that is compiled anew has other steps

    def tally(self, step: Step) -> Tally:
        """Return the running counts of a hook at a point."""
        try:
            return self._of_step[step]
        except KeyError:
            key = (step.registration.number, step.point)
            if key not in self._tallies:
                self._tallies[key] = Tally(step.registration.name, step.point)
            return self._of_step.setdefault(step, self._tallies[key])

    def tallies(self) -> dict[tuple[int, str], Tally]:
        """Return all running counts, by registration number and point."""
        return dict(self._tallies)

    def mark(self) -> Mark:
        """Return where the books stand now, to be handed in when the work that begins here has ended."""
        return Mark(time.perf_counter_ns(), self.steps, self.exposed_ns)

    def captured(self, step: Step, tally: Tally, start_ns: int, exposed_ns: int, nbytes: int | None) -> None:
        """Book a capture of the training thread that began at a time, with so much booked as exposed by then.

        ``nbytes`` is None where it has decided that nothing is due. That is what nearly all captures decide, in
        each iteration: so a `Mark` is made only for the others.
        """
        own_ns = time.perf_counter_ns() - start_ns - (self.exposed_ns - exposed_ns)
        self.exposed_ns += own_ns
        tally.capture_ns += own_ns
        if nbytes is not None:
            self.record("capture", step, Mark(start_ns, self.steps, exposed_ns), {"bytes": nbytes})

    def waited(self, kind: SpanKind, step: Step | None, mark: Mark, waited_for: Sequence[str]) -> None:
        """Book a wait of the training thread; it is a span if there was anything to wait for."""
        elapsed_ns = self._expose(mark)
        if kind == "drain" or step is None:
            self.drain_ns += elapsed_ns
        elif kind == "backpressure":
            self.tally(step).backpressure_ns += elapsed_ns
        elif kind == "stage":
            self.tally(step).stage_ns += elapsed_ns
        elif self._inline:
            self.tally(step).inline_ns += elapsed_ns
        else:
            self.tally(step).barrier_ns += elapsed_ns
        if waited_for:
            self.record(kind, step, mark, {"waited_for": list(waited_for)})

    def record(self, kind: SpanKind, step: Step | None, mark: Mark, detail: Mapping[str, object]) -> None:
        """Tell the instrument of a span that ends now. An instrument that raises is logged, once."""
        if self._instrument is None:
            return
        name = step.registration.name if step else "executor"
        point = step.point if step else ""
        span = Span(kind, name, point, mark.start_ns, time.perf_counter_ns(), mark.step, detail)
        try:
            self._instrument.record(span)
        except Exception:
            if not self._instrument_has_failed:
                self._instrument_has_failed = True
                logger.exception(
                    "the instrument %r failed at %s; training goes on, and spans are missing from what it shows "
                    "(said once)",
                    self._instrument,
                    span,
                )

    def _expose(self, mark: Mark) -> int:
        """Return the time since the mark that nobody has booked yet, and book it as exposed."""
        elapsed_ns = time.perf_counter_ns() - mark.start_ns
        own_ns = elapsed_ns - (self.exposed_ns - mark.exposed_ns)
        self.exposed_ns += own_ns
        return own_ns
