"""Ranks wait for each other in the background: each arrives with its result, the first decides, all depart.

Decides how they tell each other through a `torch.distributed.Store`, and how long anybody waits for anybody: as long
as the other one lives. Knows no checkpoint, no collective and no process group; a round belongs to worker threads.
Waits poll with `check` (a timed `wait` of torch's writes a line to the terminal each time that it ends).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from asynchooks.distributed._heart import Heart, Watch
from asynchooks.distributed._store import StoreLost, Telling
from asynchooks.errors import DistributedError, RankFailedError, RankLostError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Progress", "Rendezvous", "Round"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int], None]
"""Called with 0 now and then while a rank waits; what it raises ends the wait."""

_DECIDED, _FAILED = b"decided", b"failed"
_LEAST_POLL_S, _POLL_GROWTH = 0.0005, 1.5
_MOST_POLL_S = 0.1
_CHECKS_PER_S = 20_000  # of all ranks together, a third of what one store answers
_MOST_TEXT = 4000


def _go_on(nbytes: int) -> None:
    """Let the wait go on."""


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

    @property
    def is_first(self) -> bool:
        """Whether this rank decides."""
        return self.rank == 0

    @contextmanager
    def round(self, what: str) -> Iterator[Round]:
        """Take part in the next round. Worker thread; one round at a time.

        What is raised inside before the decision is told to all others as this rank's error; leaving departs.

        Args:
            what: names the work in messages, such as "step 1000: iter_1000".

        Raises:
            RankFailedError, RankLostError: another rank's error; see `Round`.
        """
        number, self._rounds = self._rounds, self._rounds + 1
        if self.world_size == 1:
            yield Round(self, what, number, None, None)
            return
        self.start()
        assert self._telling is not None  # noqa: S101 - there are ranks
        assert self._heart is not None  # noqa: S101 - there are ranks
        try:
            self._heart.enter(number)
        except StoreLost as error:
            raise _store_lost(what, error) from error
        taking_part = Round(self, what, number, self._telling, Watch(self.deadline_s, self.absent_s, number))
        with taking_part:
            yield taking_part

    def start(self) -> None:
        """Connect, and let the heart beat: then a rank that dies is noticed. Else the first round does it.

        Raises:
            RankLostError: the store is gone.
        """
        if self.world_size == 1 or self._heart is not None:
            return
        try:
            self._telling = Telling.on(self._store, self.name)
            self._heart = Heart(Telling.on(self._store, self.name), self.rank, self.deadline_s)
            self._heart.enter(-1)
        except StoreLost as error:
            raise _store_lost(self.name, error) from error

    def close(self) -> None:
        """Stop the heart: this rank will not take part any more. Blocks for a moment; may be called twice."""
        heart, self._heart = self._heart, None
        self._telling = None
        if heart is not None:
            heart.stop()

    def parent(self) -> int:
        """The rank at which this one arrives."""
        return (self.rank - 1) // self.fan_in

    def children(self, rank: int) -> range:
        """The ranks that arrive at a rank."""
        first = rank * self.fan_in + 1
        return range(min(first, self.world_size), min(first + self.fan_in, self.world_size))

    def poll_s(self) -> float:
        """Seconds between two looks of a rank that has waited for a while."""
        return max(_MOST_POLL_S, self.world_size / _CHECKS_PER_S)


class Round:
    """One rank's part in one round: it works, arrives, learns the decision, and departs.

    Args:
        meeting: the rendezvous.
        what: names the work.
        number: of the round.
        telling: the connection; None for a process alone.
        watch: over the others.
    """

    def __init__(
        self, meeting: Rendezvous, what: str, number: int, telling: Telling | None, watch: Watch | None
    ) -> None:
        self._meeting = meeting
        self._what = what
        self._number = number
        self._telling = telling
        self._watch = watch
        self._looked_s = time.monotonic()
        self._decision: bytes | None = None
        self._has_told = False

    # ---- what a rank does ----

    def beat(self, nbytes: int = 0) -> None:
        """While this rank works: look now and then whether another one has failed. Any thread.

        Raises:
            RankFailedError, RankLostError: the round has failed; there is nothing left to work for.
        """
        del nbytes
        now_s = time.monotonic()
        if self._telling is None or now_s - self._looked_s < self._meeting.deadline_s / 10:
            return
        self._looked_s = now_s
        with self._hearing():
            self._raise_if_failed()

    def arrive(self, mine: bytes, *, progress: Progress = _go_on) -> list[bytes] | None:
        """Say that this rank is done, with its result. Blocks where ranks arrive here, until they have.

        Args:
            mine: the result, up to some MB.
            progress: see `Progress`.

        Returns:
            On the first rank the results of all, by rank; on the others None.

        Raises:
            RankFailedError: another rank has failed; with its number and error.
            RankLostError: one that arrives here has died or hangs.
        """
        if self._telling is None:
            return [mine]
        meeting, telling = self._meeting, self._telling
        with self._hearing():
            results = {meeting.rank: mine}
            signs = {child: self._key("arrived", child) for child in meeting.children(meeting.rank)}
            if signs:
                self._wait(telling, signs, progress)
            for key in signs.values():  # one by one: many large values in one answer take longer
                results.update(_unpacked(telling.get(key)))
                telling.delete(key)
            if meeting.is_first:
                return [results[rank] for rank in range(meeting.world_size)]
            telling.set(self._key("arrived", meeting.rank), _packed(results))
            return None

    def decide(self, decision: bytes) -> None:
        """First rank, when all have arrived: say what came of it. It stands: no rank can fail the round any more.

        Raises:
            RankFailedError, RankLostError: the others have given up waiting for this rank meanwhile.
        """
        self._decision = decision
        if self._telling is None:
            return
        with self._hearing():
            self._telling.set(self._key("decision"), decision)  # before the verdict, on the same connection
            verdict = self._telling.settle(self._key("verdict"), _DECIDED)
            if verdict != _DECIDED:
                self._decision = None
                self._raise(verdict)

    def decision(self, *, progress: Progress = _go_on) -> bytes:
        """What the first rank has decided. Blocks until it has.

        Raises:
            RankFailedError: a rank has failed; with its number and error.
            RankLostError: a rank has died or hangs. Of the first rank nobody knows then how far it came.
        """
        if self._decision is not None:
            return self._decision
        telling = self._telling
        if telling is None:
            raise RuntimeError(f"{self._what}: decide() comes first")
        with self._hearing():
            self._wait(telling, {0: self._key("verdict")}, progress)
            self._raise_if_failed()
            self._decision = telling.get(self._key("decision"))
        return self._decision

    # ---- the end ----

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._decision is None:
            cause = error if error is not None else DistributedError("it left without a decision")
            self._tell_failure(self._meeting.rank, f"{type(cause).__name__}: {cause}", is_lost=False)
            return
        try:
            self._depart()
        except StoreLost as lost:  # the decision stands
            logger.warning("%s: could not depart in order: %s", self._what, lost)

    def _depart(self) -> None:
        meeting, telling, watch = self._meeting, self._telling, self._watch
        if telling is None or watch is None:
            return
        left, gone = self._key("left"), self._key("all left")
        if telling.add(left) == meeting.world_size:
            telling.set(gone, b"")
        if not meeting.is_first:
            return
        others = range(1, meeting.world_size)
        for _ in self._polls(_go_on):
            if telling.has(gone):
                for key in ("verdict", "decision", "left", "all left"):
                    telling.delete(self._key(key))
                return
            for rank, why in watch.lost(telling, others):
                logger.warning("%s: rank %d did not depart: %s", self._what, rank, why)
                return

    # ---- how ----

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, (self._number, *parts)))

    def _wait(self, telling: Telling, signs: Mapping[int, str], progress: Progress) -> None:
        """Wait until all these signs of other ranks are there; fail the round where one cannot come any more."""
        watch = self._watch
        assert watch is not None  # noqa: S101 - made with the connection
        for _ in self._polls(progress):
            if telling.has(*signs.values()):
                return
            self._raise_if_failed()
            for rank, why in watch.lost(telling, list(signs)):
                if not telling.has(signs[rank]):  # it may have come just before its rank died
                    self._tell_failure(rank, why, is_lost=True)
                    self._has_told = True
                    self._raise_if_failed()

    def _polls(self, progress: Progress) -> Iterator[None]:
        pause_s, most_s = _LEAST_POLL_S, self._meeting.poll_s()
        while True:
            yield
            progress(0)
            time.sleep(pause_s)  # in a worker thread; a store cannot call back
            pause_s = min(pause_s * _POLL_GROWTH, most_s)

    def _raise_if_failed(self) -> None:
        telling = self._telling
        if telling is not None and telling.has(self._key("verdict")):
            verdict = telling.get(self._key("verdict"))
            if verdict != _DECIDED:
                self._raise(verdict)

    def _raise(self, verdict: bytes) -> NoReturn:
        self._has_told = True
        told = json.loads(verdict.removeprefix(_FAILED))
        rank, text = int(told["rank"]), str(told["text"])
        if told["is_lost"]:
            raise RankLostError(f"{self._what}: rank {rank} is lost: {text}", rank=rank)
        raise RankFailedError(f"{self._what}: rank {rank} failed: {text}", rank=rank)

    def _tell_failure(self, rank: int, text: str, *, is_lost: bool) -> None:
        """Tell all others; the first failure that is told is everybody's."""
        if self._telling is None or self._has_told:
            return
        self._has_told = True
        told = json.dumps({"rank": rank, "text": text[:_MOST_TEXT], "is_lost": is_lost})
        try:
            self._telling.settle(self._key("verdict"), _FAILED + told.encode())
        except StoreLost as lost:  # nobody can be told; the others notice
            logger.warning("%s: could not tell the other ranks of a failure: %s", self._what, lost)

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Say what a broken connection means."""
        try:
            yield
        except StoreLost as error:
            self._has_told = True
            raise _store_lost(self._what, error) from error


def _store_lost(what: str, error: StoreLost) -> RankLostError:
    return RankLostError(
        f"{what}: the store through which the ranks meet is gone ({error}). It lives with the first rank, or with "
        "torchrun: that process has ended.",
        rank=0,
    )


def _packed(results: dict[int, bytes]) -> bytes:
    """Results of several ranks in one value: a line of JSON with ranks and lengths, and then the bytes."""
    head = json.dumps([(rank, len(result)) for rank, result in results.items()]).encode()
    return head + b"\n" + b"".join(results.values())


def _unpacked(value: bytes) -> dict[int, bytes]:
    head, _, rest = value.partition(b"\n")
    results: dict[int, bytes] = {}
    start = 0
    for rank, nbytes in json.loads(head):
        results[rank] = rest[start : start + nbytes]
        start += nbytes
    return results
