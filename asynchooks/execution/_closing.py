"""The end of a context: wait for what is in flight, give it up after the grace period, and say so."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.execution._flight import Flight
    from asynchooks.execution._portal import Portal

__all__ = ["give_up", "raise_all", "report_orphan", "settle"]

logger = logging.getLogger(__name__)


def settle(
    flight: Flight,
    portal: Portal,
    error: BaseException | None,
    grace_period: float,
    raised: list[BaseException],
) -> None:
    """Wait for everything in flight; add to ``raised`` what is raised meanwhile.

    Without an exception there is no limit: every wait inside has its own. With one, what is in flight gets the
    grace period, then it is cancelled; a second Ctrl-C (or ``sys.exit`` from a signal handler) cancels at once.
    """
    deadline = None if error is None else time.monotonic() + grace_period
    stops = 1 if isinstance(error, KeyboardInterrupt | SystemExit) else 0
    reason = error
    while True:
        try:
            if deadline is not None and reason is not None:
                _announce(flight, reason, deadline)
            if not flight.waits.idle(None, deadline):
                give_up(flight, portal)
                flight.waits.idle(None, None)
            return
        except Exception as failed:  # noqa: BLE001 - a deferred hook's own error, raised by the caller
            raised.append(failed)
        except BaseException as stop:  # noqa: BLE001 - raised by the caller, when all is settled
            reason = reason or stop
            if error is None and not stops:
                raised.append(stop)
            stops += 1
            grace_end = time.monotonic() + (grace_period if stops == 1 else 0)
            deadline = grace_end if deadline is None else min(deadline, grace_end)


def give_up(flight: Flight, portal: Portal) -> None:
    """Cancel what is in flight; what shields itself still finishes."""
    names = flight.in_flight_names()
    if names:
        logger.warning("cancelling in-flight work: %s", ", ".join(names))
    flight.abandon_waiting()
    portal.cancel()


def raise_all(
    error: BaseException | None, raised: Sequence[BaseException], failures: Exception | None
) -> None:
    """Raise what ended a context, so that nothing hides anything else; the loop's own error alone is left alone.

    Args:
        error: what the context is left with.
        raised: by deferred hooks, and by signals, while the executor closed.
        failures: of background parts.
    """
    if error is None and not raised:
        if failures is not None:
            raise failures
        return
    told = failures.exceptions if isinstance(failures, ExceptionGroup) else (failures,) if failures else ()
    everything = [each for each in (error, *raised, *told) if each is not None]
    if len(everything) > 1:
        raise BaseExceptionGroup("training stopped, and hooks failed", everything)
    if raised:
        raise raised[0]


def report_orphan(flight: Flight) -> None:
    """Log what was lost or failed when nobody has closed the executor."""
    names = flight.in_flight_names()
    if names:
        logger.error("the executor was not closed, and nobody can run these any more: %s", ", ".join(names))
    failure = flight.take_failures()
    if failure is not None:
        logger.error("background parts failed and nobody was left to be told", exc_info=failure)


def _announce(flight: Flight, reason: BaseException, deadline: float) -> None:
    names = flight.in_flight_names()
    if names:
        logger.warning(
            "training stopped (%s); finishing in-flight work, at most %.3g s (Ctrl-C cancels it): %s",
            type(reason).__name__,
            max(0.0, deadline - time.monotonic()),
            ", ".join(names),
        )
