"""When an evaluation is due. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from asynchooks.errors import ConfigError

__all__ = ["Schedule", "checked_count"]


def checked_count(what: str, value: Any, *, least: int) -> int:
    """Return an int argument of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}={value!r}: give an int.")
    if value < least:
        raise ConfigError(f"{what}={value!r}: give an int of at least {least}.")
    return value


class Schedule:
    """The epochs or iterations, counted from 1, at which an evaluation is due.

    Args:
        name: class name of the hook, for messages.
        interval: from one evaluation to the next.
        start: the first one; None for the multiples of the interval.
        dynamic_intervals: ``[(from, interval), ...]``, later intervals.
    """

    def __init__(
        self,
        name: str,
        interval: int,
        start: int | None,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.interval = checked_count(f"{name}(interval)", interval, least=1)
        self.start = None if start is None else checked_count(f"{name}(start)", start, least=0)
        self._milestones, self._intervals = [0], [self.interval]
        for pair in dynamic_intervals or ():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ConfigError(
                    f"{name}(dynamic_intervals={dynamic_intervals!r}): give pairs of a number and an interval."
                )
            self._milestones.append(checked_count(f"{name}(dynamic_intervals)", pair[0], least=0))
            self._intervals.append(checked_count(f"{name}(dynamic_intervals)", pair[1], least=1))
        if self._milestones != sorted(self._milestones):
            raise ConfigError(f"{name}(dynamic_intervals={dynamic_intervals!r}): the numbers increase.")

    def advance(self, number: int) -> None:
        """Choose the interval that holds for an epoch or iteration."""
        if len(self._intervals) > 1:
            self.interval = self._intervals[bisect.bisect(self._milestones, number) - 1]

    def is_due(self, number: int) -> bool:
        """Whether an evaluation is due after an epoch or iteration."""
        if self.start is None:
            return number % self.interval == 0
        return number >= self.start and (number - self.start) % self.interval == 0
