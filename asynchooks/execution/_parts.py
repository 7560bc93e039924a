"""The parts in flight as data: who is there, what they hold, what is deferred. Guarded by the flight's lock."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynchooks.execution._backpressure import Room

if TYPE_CHECKING:
    from asynchooks.execution._part import Part
    from asynchooks.execution._registration import Registration
    from asynchooks.execution._scoreboard import Key

__all__ = ["Limits", "Parts"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be in flight at once."""

    max_in_flight: int
    staging_budget: int


class Parts:
    """The parts in flight.

    Attributes:
        by_key: the parts. Whether it is empty may be read without the lock.
        deferred: keys of the parts whose foreground is still to run on the training thread, in program order.
        staged_bytes: captured bytes that are held, by parts and by captures that run now.
    """

    def __init__(self) -> None:
        self.deferred: list[Key] = []
        self.staged_bytes = 0
        self.by_key: dict[Key, Part] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self.by_key

    def __getitem__(self, key: Key) -> Part:
        return self.by_key[key]

    def get(self, key: Key) -> Part | None:
        """Return the part of a key, or None."""
        return self.by_key.get(key)

    def names(self) -> tuple[str, ...]:
        """Return ``Hook.point`` of the parts, in program order."""
        return tuple(part.step.name for part in self.in_order())

    def in_order(self) -> list[Part]:
        """Return the parts in program order. Safe without the lock: a copy is atomic."""
        return [part for _, part in sorted(self.by_key.copy().items(), key=lambda item: item[0])]

    def add(self, part: Part) -> None:
        """Add a part."""
        self.by_key[part.key] = part
        if part.deferred is not None:
            insort(self.deferred, part.key)

    def discard(self, part: Part) -> None:
        """Remove a part, and give back the bytes that it holds."""
        self.by_key.pop(part.key, None)
        if part.key in self.deferred:
            self.deferred.remove(part.key)
        self.staged_bytes -= part.reserved
        part.reserved = 0

    def has_deferred(self, before: Key) -> bool:
        """Whether a foreground part that comes before a place in program order is still to run."""
        return bool(self.deferred) and self.deferred[0] < before

    def pop_deferred(self, before: Key, *, captures_may_run: bool) -> Part | None:
        """Take the first deferred foreground part if it may run now.

        Args:
            before: the place in program order that it must precede.
            captures_may_run: captures wait for nothing; False where an inline run is kept to.
        """
        if not self.has_deferred(before):
            return None
        part = self.by_key[self.deferred[0]]
        if not part.may_start and not (captures_may_run and part.step.shape == "capture"):
            return None
        self.deferred.pop(0)
        return part

    def of(self, registration: Registration, point: str) -> list[Part]:
        """Return the background parts of a hook at a point, in program order."""
        return [
            part
            for part in self.in_order()
            if part.step.registration is registration and part.step.point == point and part.is_background
        ]

    def any_firing(self, before: Key) -> bool:
        """Whether a part before a place in program order may fire a point."""
        return any(key < before and part.step.may_fire for key, part in self.by_key.items())

    def any_touching(self, names: frozenset[str] | None, before: Key) -> bool:
        """Whether a part before a place in program order touches one of the resources, or may do so.

        None means all resources.
        """
        return any(
            key < before and (names is None or part.step.may_touch(names))
            for key, part in self.by_key.items()
        )

    def room(self, registration: Registration, limits: Limits, held_bytes: int) -> Room:
        """Return how full it is for one more part of a hook that holds some bytes already."""
        flying = [part for part in self.by_key.values() if part.is_background]
        return Room(
            in_flight=len(flying),
            max_in_flight=limits.max_in_flight,
            own_in_flight=sum(part.step.registration is registration for part in flying),
            own_limit=registration.max_in_flight,
            staged_bytes=self.staged_bytes - held_bytes,
            held_bytes=held_bytes,
            budget_bytes=limits.staging_budget,
        )
