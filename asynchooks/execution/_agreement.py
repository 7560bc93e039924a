"""Failures that several processes raise together: where they are asked, and what each of them raises.

Processes that train one model meet in every step. One that raised a failure of its own alone would leave the others
waiting there. Decides when a held failure is raised; how the processes talk, the agreement knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from asynchooks.execution._flight import Flight

__all__ = ["Agreement", "Place", "raise_failures"]

Place = Literal["drain", "close"]


class Agreement(Protocol):
    """What processes that train together say to each other about failures. Called on the training thread."""

    @property
    def points(self) -> Collection[str]:
        """The hook points at whose firing it is asked, before any hook; every process fires them equally often."""

    def is_due(self, place: str, *, has_failed: bool) -> bool:
        """Whether all raise now what has failed in any of them; the same answer in every process.

        Args:
            place: one of `points`, or "drain" (of everything) or "close", where all come and an answer is waited for.
            has_failed: whether something has failed here and was not raised.
        """

    def joint(self, own: Exception | None) -> Exception | None:
        """Return what to raise here, now that all do.

        Args:
            own: what has failed here.
        """


def raise_failures(flight: Flight, place: str) -> None:
    """Raise what has failed and was not raised yet; inside a deferred method, not what comes after it.

    With an agreement, only where it is asked, and when it says so.

    Args:
        flight: where things have failed.
        place: a hook point before its hooks run, "drain" or "close"; empty where nobody else comes.
    """
    agreement = flight.agreement
    if agreement is None:
        error = flight.take_failures(everything=False)
    else:
        is_asked = place in ("drain", "close") or place in agreement.points
        if not is_asked or flight.deferring is not None:
            return
        if not agreement.is_due(place, has_failed=flight.has_failed):
            return
        error = agreement.joint(flight.take_failures(everything=False))
    if error is not None:
        raise error
