"""What happens when there is no room for one more background part. Pure.

Decides by counts and bytes alone; who waits, and for how long, is the flight's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from asynchooks.execution._hook import WhenBusy

__all__ = ["Admission", "InvocationSkipped", "Room", "admit"]

Admission: TypeAlias = Literal["admit", "wait", "skip", "replace"]


class InvocationSkipped(BaseException):
    """Ends a capture for which there is no room; raised by `HookExecutor.reserve`, caught by the executor.

    Not an `Exception`, so that a hook's own handlers let it pass.
    """


@dataclass(frozen=True, slots=True)
class Room:
    """How full the executor is, seen by one hook.

    Attributes:
        in_flight: background parts of all hooks, started or not.
        max_in_flight: their limit.
        own_in_flight: background parts of this hook.
        own_limit: this hook's own limit, or None.
        staged_bytes: captured bytes held by others than the asking invocation.
        held_bytes: captured bytes held by the asking invocation.
        budget_bytes: limit of both together.
    """

    in_flight: int
    max_in_flight: int
    own_in_flight: int
    own_limit: int | None
    staged_bytes: int
    held_bytes: int
    budget_bytes: int

    def fits(self, nbytes: int) -> bool:
        """Whether there is room for one more part that holds ``nbytes`` more.

        A capture larger than the whole budget is admitted when nobody else holds anything: it could never run
        otherwise.
        """
        if self.in_flight >= self.max_in_flight:
            return False
        if self.own_limit is not None and self.own_in_flight >= self.own_limit:
            return False
        total = self.staged_bytes + self.held_bytes + nbytes
        return nbytes == 0 or self.staged_bytes == 0 or total <= self.budget_bytes


def admit(room: Room, nbytes: int, when_busy: WhenBusy, *, replaceable: bool) -> Admission:
    """Decide for one more background part.

    Args:
        room: how full it is.
        nbytes: bytes that the part is about to capture; 0 if it captures none or holds them already.
        when_busy: the hook's decision when full.
        replaceable: whether an earlier part of the same hook and point has not started.
    """
    if room.fits(nbytes):
        return "admit"
    if when_busy == "skip":
        return "skip"
    if when_busy == "coalesce" and replaceable:
        return "replace"
    return "wait"
