"""Priorities: MMEngine's names and numbers; a lower number runs earlier, ties run in order of registration."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from asynchooks.errors import UnknownNameError, did_you_mean

__all__ = ["Priority", "PriorityLike", "get_priority", "priority_name"]


class Priority(IntEnum):
    """The named priorities. Any int from 0 to 100 is a priority too."""

    HIGHEST = 0
    VERY_HIGH = 10
    HIGH = 30
    ABOVE_NORMAL = 40
    NORMAL = 50
    BELOW_NORMAL = 60
    LOW = 70
    VERY_LOW = 90
    LOWEST = 100


PriorityLike: TypeAlias = int | str | Priority


def get_priority(priority: PriorityLike) -> int:
    """Return the number, 0 to 100, of a priority given as a name, an int or a `Priority`.

    Raises:
        ValueError: an int outside 0..100.
        UnknownNameError: (a KeyError) no priority has this name.
        TypeError: anything else, bools included.
    """
    if isinstance(priority, Priority):
        return int(priority)
    if isinstance(priority, bool) or not isinstance(priority, int | str):
        raise TypeError(f"A priority is an int from 0 to 100 or a name such as 'NORMAL', not {priority!r}.")
    if isinstance(priority, int):
        if not 0 <= priority <= 100:
            raise ValueError(f"A priority lies between 0 (first) and 100 (last), not {priority}.")
        return priority
    try:
        return int(Priority[priority.upper()])
    except KeyError:
        names = [p.name for p in Priority]
        raise UnknownNameError(
            f"No priority is called {priority!r}.{did_you_mean(priority.upper(), names)} "
            f"There are {', '.join(names)}, or an int from 0 to 100."
        ) from None


def priority_name(priority: int) -> str:
    """Return the name of a priority, or the number as text where it has none."""
    try:
        return Priority(priority).name
    except ValueError:
        return str(priority)
