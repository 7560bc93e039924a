"""The end of a context: wait for what is in flight, give it up after the grace period, and say so."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynchooks.execution._flight import Flight
    from asynchooks.execution._portal import Portal

__all__ = ["report_orphan", "settle"]

logger = logging.getLogger(__name__)


def settle(
    flight: Flight, portal: Portal, error: BaseException | None, grace_period: float
) -> BaseException | None:
    """Wait for everything in flight; return the exception with which the context is left, if any.

    Without an exception there is no limit: every wait inside has its own. With one, what is in flight gets the
    grace period, then it is cancelled; a second Ctrl-C cancels at once.
    """
    deadline = None if error is None else time.monotonic() + grace_period
    interrupts = 1 if isinstance(error, KeyboardInterrupt) else 0
    while True:
        try:
            if deadline is not None:
                _announce(flight, error, deadline)
            if not flight.wait_idle(None, deadline):
                _cancel(flight, portal)
                flight.wait_idle(None, None)
            return error
        except KeyboardInterrupt as interrupt:
            error = error or interrupt
            interrupts += 1
            grace_end = time.monotonic() + (grace_period if interrupts == 1 else 0)
            deadline = grace_end if deadline is None else min(deadline, grace_end)
        except Exception as raised:  # noqa: BLE001 - a deferred hook's own error, raised by __exit__
            error = raised if error is None else BaseExceptionGroup("closing", [error, raised])


def report_orphan(flight: Flight) -> None:
    """Log what was lost or failed when the program ended without closing the executor."""
    names = flight.in_flight_names()
    if names:
        logger.error("the program ended before these could run: %s", ", ".join(names))
    failure = flight.take_failures()
    if failure is not None:
        logger.error("background parts failed and nobody was left to be told", exc_info=failure)


def _announce(flight: Flight, error: BaseException | None, deadline: float) -> None:
    names = flight.in_flight_names()
    if names:
        logger.warning(
            "training stopped (%s); finishing in-flight work, at most %.3g s (Ctrl-C cancels it): %s",
            type(error).__name__,
            max(0.0, deadline - time.monotonic()),
            ", ".join(names),
        )


def _cancel(flight: Flight, portal: Portal) -> None:
    logger.warning("cancelling in-flight work: %s", ", ".join(flight.in_flight_names()))
    flight.abandon_waiting()
    portal.cancel()
