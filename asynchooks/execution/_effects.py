"""Effects: which external resources a hook reads and writes, and when two hooks conflict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Effects", "conflict", "union"]


@dataclass(frozen=True, slots=True, init=False)
class Effects:
    """The external resources that a hook touches, as dotted names; a name covers everything below it.

    ``Effects()`` says "touches nothing outside the process". A hook without effects (None) is unknown, and
    what is unknown waits at every priority boundary.

    Example:
        ``Effects(reads={"checkpoints"}, writes={"logs.tensorboard"})``

    Raises:
        TypeError: a single string where a set of names is expected.
        ValueError: a name that is no dotted identifier.
    """

    reads: frozenset[str]
    writes: frozenset[str]

    def __init__(self, reads: Iterable[str] = (), writes: Iterable[str] = ()) -> None:
        object.__setattr__(self, "reads", _names("reads", reads))
        object.__setattr__(self, "writes", _names("writes", writes))

    def covers(self, resources: Iterable[str]) -> bool:
        """Whether a read or a write overlaps one of the resources."""
        return any(_overlap(mine, theirs) for theirs in resources for mine in self.reads | self.writes)


def conflict(one: Effects, other: Effects) -> bool:
    """Whether one writes what the other reads or writes."""
    return any(_overlap(w, t) for w in one.writes for t in other.reads | other.writes) or any(
        _overlap(w, r) for w in other.writes for r in one.reads
    )


def union(effects: Iterable[Effects | None]) -> Effects | None:
    """What several hooks touch together; unknown (None) as soon as one is unknown."""
    reads: set[str] = set()
    writes: set[str] = set()
    for each in effects:
        if each is None:
            return None
        reads |= each.reads
        writes |= each.writes
    return Effects(reads, writes)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def _names(field: str, names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"Effects({field}={names!r}): give a set of names, such as {{{names!r}}}.")
    checked = frozenset(names)
    for name in checked:
        if not isinstance(name, str):
            raise TypeError(f"Effects({field}=...): a resource is a dotted name, not {name!r}.")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"Effects({field}=...): {name!r} is no dotted name such as 'logs.tensorboard'.")
    return checked
