"""Ranks wait for each other in the background: each arrives with its result, the first decides, all depart.

Decides who meets where, and how long anybody waits for anybody: as long as the other one lives. Knows no checkpoint,
no collective and no process group.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asynchooks.distributed._heart import Heart, Watch
from asynchooks.distributed._round import Round, store_lost
from asynchooks.distributed._store import StoreLost, Telling
from asynchooks.errors import RankLostError

__all__ = ["Rendezvous"]

logger = logging.getLogger(__name__)

_MOST_POLL_S = 0.1
_CHECKS_PER_S = 5_000  # of all ranks together, a twelfth of what one store answers (benchmarks/scale.md)


class Rendezvous:
    """Where the ranks meet, round after round, in the same order on every rank.

    Makes no connection before `start` or its first round. Close it when there will be no more rounds: its heart beats
    until then, in a thread of its own, so that the other ranks know that this process lives.

    Args:
        store: where they tell each other; None for a process without ranks, which decides alone.
        rank: the number of this one.
        world_size: how many there are.
        name: what it is for; the same on every rank, and another one for every other rendezvous of the job.
        deadline_s: a rank whose heart stands still for so long is lost.
        absent_s: a rank that lives, and does not enter a round for so long, is lost too.
        fan_in: how many ranks arrive at one; beyond it, they arrive at others that pass it on.
    """

    def __init__(
        self,
        store: Any,
        *,
        rank: int,
        world_size: int,
        name: str,
        deadline_s: float = 120.0,
        absent_s: float = 1800.0,
        fan_in: int = 64,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of {world_size}")
        if fan_in < 1 or not deadline_s > 0:
            raise ValueError(f"fan_in={fan_in} and deadline_s={deadline_s} must be above 0")
        self.rank = rank
        self.world_size = world_size
        self.name = name
        self.deadline_s = deadline_s
        self.absent_s = absent_s
        self.fan_in = fan_in
        self._store = store
        self._telling: Telling | None = None
        self._heart: Heart | None = None
        self._rounds = 0
        self._reserved: set[int] = set()
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def is_first(self) -> bool:
        """Whether this rank decides."""
        return self.rank == 0

    def reserve(self) -> int:
        """Return the next round's number, for `round` or `skip`. Any thread; every rank in the same order.

        For work that is accepted on one thread and done later on another: what is given up in between has a number
        already, and is skipped under it.
        """
        with self._lock:
            number = self._rounds
            self._rounds += 1
            self._reserved.add(number)
        return number

    @contextmanager
    def round(self, what: str, *, number: int | None = None) -> Iterator[Round]:
        """Take part in the next round. Worker thread; one round at a time.

        What is raised inside before this rank has arrived (the first one: before it has decided) is told to all
        others as this rank's error. Who has arrived cannot fail the round any more: the others go on with what it
        brought. Leaving departs.

        Args:
            what: names the work in messages, such as "step 1000: iter_1000"; the same on every rank.
            number: the one that was reserved for this work; None reserves the next.

        Raises:
            RankFailedError, RankLostError: another rank's error; see `Round`.
            ValueError: the number was not reserved, or was used.
        """
        number = self.reserve() if number is None else number
        if not self._take(number):
            raise ValueError(f"{what}: round {number} was not reserved, or is entered or skipped already")
        if self.world_size == 1:
            yield Round(self, what, number, None, None)
            return
        self.start()
        assert self._heart is not None  # noqa: S101 - there are ranks
        try:
            self._heart.enter(number)
        except StoreLost as error:
            raise store_lost(what, error) from error
        with self._part(what, number) as taking_part:
            yield taking_part

    def skip(self, what: str, error: BaseException, *, number: int | None = None) -> None:
        """Tell all others that this rank does not come to a round, so that they fail at once and do not wait.

        Any thread, also while another one is in an earlier round; blocks for a moment. Does nothing where the number
        is used already: whoever takes a number may call this for whatever ends its work.

        Args:
            what: names the work, as of `round`.
            error: why; the others raise `RankFailedError` with its text. See `Round.give_up`.
            number: the one that was reserved for this work; None skips the next.
        """
        number = self.reserve() if number is None else number
        if not self._take(number) or self.world_size == 1 or self._is_closed:
            return
        try:
            self.start()
        except RankLostError as lost:  # the others notice it too
            logger.warning("%s: could not tell the other ranks that this one skips it: %s", what, lost)
            return
        self._part(what, number).give_up(error)

    def _take(self, number: int) -> bool:
        """Whether this number was reserved and not used; it is used then."""
        with self._lock:
            is_there = number in self._reserved
            self._reserved.discard(number)
        return is_there

    def _part(self, what: str, number: int) -> Round:
        return Round(self, what, number, self._telling, Watch(self.deadline_s, self.absent_s, number))

    def start(self) -> None:
        """Connect, and let the heart beat: then a rank that dies is noticed. Else the first round does it.

        Raises:
            RankLostError: the store is gone.
        """
        if self.world_size == 1 or self._heart is not None:
            return
        self._is_closed = False
        try:
            self._telling = Telling.on(self._store, self.name, patience_s=self.deadline_s)
            heard = Telling.on(self._store, self.name, patience_s=self.deadline_s)
            self._heart = Heart(heard, self.rank, self.deadline_s)
            self._heart.enter(-1)
        except StoreLost as error:
            self._disconnect()
            raise store_lost(self.name, error) from error

    def close(self) -> None:
        """Stop the heart: this rank will not take part any more, and others do not wait for it to come.

        Blocks for a moment; may be called twice.
        """
        self._is_closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        heart, self._heart = self._heart, None
        telling, self._telling = self._telling, None
        if heart is not None:
            heart.stop()
        if telling is not None:
            telling.close()

    def children(self, rank: int) -> range:
        """The ranks that arrive at a rank."""
        first = rank * self.fan_in + 1
        return range(min(first, self.world_size), min(first + self.fan_in, self.world_size))

    def poll_s(self, *, is_awaited: bool = False) -> float:
        """Seconds between two looks of a rank that has waited for a while.

        Args:
            is_awaited: others wait for what this one waits for. They are few.
        """
        return _MOST_POLL_S if is_awaited else max(_MOST_POLL_S, self.world_size / _CHECKS_PER_S)
