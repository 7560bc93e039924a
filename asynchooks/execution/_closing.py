"""The end of a context: wait for what is in flight, give it up within the grace period, and say so.

Decides in which order things are given up: the lowest priority first, from half of the time on, so that what is left
has machine and network to itself; what touches the checkpoints, and what that waits for, when all of it is up.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asynchooks.errors import Preempted
from asynchooks.execution._agreement import raise_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.execution._flight import Flight
    from asynchooks.execution._plan import Step
    from asynchooks.execution._portal import Portal
    from asynchooks.execution._scoreboard import Key

__all__ = ["give_up", "next_to_give_up", "raise_all", "report_orphan", "settle"]

logger = logging.getLogger(__name__)

_PROTECTED = frozenset({"checkpoints"})
_FIRST_GIVEN_UP, _LAST_GIVEN_UP = 0.5, 0.9  # of the grace period


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
    start = time.monotonic()
    deadline = None if error is None else start + grace_period
    if isinstance(error, Preempted) and error.deadline is not None:
        deadline = error.deadline
    # A second one cancels at once; being asked to end is none.
    stops = 1 if isinstance(error, KeyboardInterrupt | SystemExit) and not isinstance(error, Preempted) else 0
    reason = error
    while True:
        try:
            if deadline is not None and reason is not None:
                _announce(flight, reason, deadline)
            if not _idle_in_stages(flight, start, deadline):
                give_up(flight, portal)
                flight.waits.idle(None, None)
            if flight.agreement is not None and error is None and not raised:
                raise_failures(flight, "close")
            return
        except Exception as failed:  # noqa: BLE001 - a deferred hook's own error, raised by the caller
            raised.append(failed)
        except BaseException as stop:  # noqa: BLE001 - raised by the caller, when all is settled
            reason = reason or stop
            if error is None and not stops:
                raised.append(stop)
            stops += 1
            start = time.monotonic()
            grace_end = start + (grace_period if stops == 1 else 0)
            deadline = grace_end if deadline is None else min(deadline, grace_end)


def next_to_give_up(
    flying: Sequence[tuple[Key, Step, frozenset[Key]]], start: float, deadline: float
) -> tuple[float, frozenset[Key]] | None:
    """Return when the next parts are given up before the deadline, and which; None where that would help no save.

    Pure. One priority after the other, the lowest first (priority 100, then 99 ...), at instants that are a matter of
    the priority alone, so that ranks give up alike.

    Args:
        flying: what is in flight: key, step, and what it has to wait for.
        start: when the grace period began.
        deadline: when it ends.
    """
    protected: set[Key] = set()
    for key, step, before in flying:
        if step.effects is not None and step.effects.covers(_PROTECTED):
            protected |= {key, *before}
    others = [(key, step.registration.priority) for key, step, _ in flying if key not in protected]
    if not others or not protected:
        return None
    lowest = max(priority for _, priority in others)
    share = _FIRST_GIVEN_UP + (_LAST_GIVEN_UP - _FIRST_GIVEN_UP) * (100 - lowest) / 100
    return start + share * (deadline - start), frozenset(
        key for key, priority in others if priority == lowest
    )


def _idle_in_stages(flight: Flight, start: float, deadline: float | None) -> bool:
    """Wait until nothing is in flight; give up early what is not protected. False if the deadline passed first."""
    if deadline is None:
        return flight.waits.idle(None, None)
    # some of it may go on: a thread cannot be cancelled, and a commit shields itself
    given_up: set[Key] = set()
    while True:
        flying = [each for each in flight.in_flight_steps() if each[0] not in given_up]
        instant, keys = next_to_give_up(flying, start, deadline) or (deadline, frozenset())
        if flight.waits.idle(None, instant):
            return True
        if time.monotonic() >= deadline:
            return False
        left = [(key, step.name) for key, step, _ in flight.in_flight_steps() if key in keys]
        if left:
            logger.warning(
                "giving up, so that the checkpoint has the time that is left: %s",
                ", ".join(n for _, n in left),
            )
            flight.give_up([key for key, _ in left])
        given_up |= keys


def give_up(flight: Flight, portal: Portal) -> None:
    """Cancel what is in flight; what shields itself still finishes."""
    names = flight.in_flight_names()
    if names:
        logger.warning("cancelling in-flight work: %s", ", ".join(names))
    flight.give_up()
    portal.cancel()


def raise_all(error: BaseException | None, raised: Sequence[BaseException], flight: Flight) -> None:
    """Raise what ended a context, so that nothing hides anything else; the loop's own error alone is left alone.

    Args:
        error: what the context is left with.
        raised: by deferred hooks, and by signals, while the executor closed.
        flight: has the failures of background parts; what a run that was asked to end has given up is none.
    """
    if isinstance(error, Preempted):
        error.given_up = flight.take_given_up()
    failures = flight.take_failures()
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
