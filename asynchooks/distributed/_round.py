"""One rank's part in one round: it works, arrives, learns the decision, and departs.

Decides what is told through the store, under which keys, and who removes it. A round belongs to worker threads. Waits
poll with `check` (a timed `wait` of torch's writes a line to the terminal each time that it ends).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from asynchooks.distributed._results import packed, unpacked
from asynchooks.distributed._store import StoreLost, Telling
from asynchooks.errors import DistributedError, RankFailedError, RankLostError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from asynchooks.distributed._heart import Watch
    from asynchooks.distributed._rendezvous import Rendezvous

__all__ = ["Progress", "Round", "store_lost"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int], None]
"""Called with 0 now and then while a rank waits; what it raises ends the wait."""

_DECIDED, _FAILED = b"decided", b"failed"
_LEAST_POLL_S, _POLL_GROWTH = 0.0005, 1.5
_LOOKS_PER_VERDICT = 4  # of who waits for others to arrive, and hears of a failure so much later
_MOST_TEXT = 4000


def _go_on(nbytes: int) -> None:
    """Let the wait go on."""


class Round:
    """One rank's part in one round: it works, arrives, learns the decision, and departs.

    Args:
        meeting: the rendezvous.
        what: names the work.
        number: of the round: the same on every rank, and never twice in a rendezvous.
        telling: the connection; None for a process alone.
        watch: over the others.
    """

    def __init__(
        self, meeting: Rendezvous, what: str, number: int, telling: Telling | None, watch: Watch | None
    ) -> None:
        self._meeting = meeting
        self._what = what
        self.number = number
        self._telling = telling
        self._watch = watch
        self._looked_s = time.monotonic()
        self._decision: bytes | None = None
        self._has_told = False
        self._is_cut_off = False
        self._has_left = False
        self._has_arrived = False

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
            self._has_arrived = True
            return [mine]
        meeting, telling = self._meeting, self._telling
        with self._hearing():
            results = {meeting.rank: mine}
            signs = {child: self._key("arrived", child) for child in meeting.children(meeting.rank)}
            if signs:
                self._wait(telling, signs, progress)
            for child, key in signs.items():  # one by one: many large values in one answer take longer
                came_to, brought = unpacked(telling.read(key))
                telling.drop(key)
                self._check_came(child, came_to)
                results.update(brought)
            self._has_arrived = True
            if meeting.is_first:
                return [results[rank] for rank in range(meeting.world_size)]
            telling.put(self._key("arrived", meeting.rank), packed(self._what, results))
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
            self._telling.put(self._key("decision"), decision)  # before the verdict, on the same connection
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
            self._decision = telling.read(self._key("decision"))
        return self._decision

    # ---- the end ----

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up(error or DistributedError("it left without a decision"))

    def give_up(self, cause: BaseException) -> None:
        """Leave: with what is decided; where nothing is, and this rank is still needed, fail the round.

        Any thread: another one than the round's where that is held and left behind. The first time counts.

        Args:
            cause: why. One with a true attribute ``is_cancelled`` is no failure: the others' error says so.
        """
        if self._has_left:
            return
        self._has_left = True
        if self._decision is None and (not self._has_arrived or self._meeting.is_first):
            is_cancelled = bool(getattr(cause, "is_cancelled", False))
            text = str(cause) if is_cancelled else f"{type(cause).__name__}: {cause}"
            is_early = not self._has_arrived
            rank = self._meeting.rank
            self._tell_failure(rank, text, is_lost=False, is_early=is_early, is_cancelled=is_cancelled)
        try:
            self._depart()
        except StoreLost as lost:  # what was decided stands
            logger.warning("%s: could not depart in order: %s", self._what, lost)

    def _depart(self) -> None:
        """Say that this rank asks nothing more about this round. The last one to leave removes what was told.

        Where all go on, the first one waits for the others, since the store may live in it; no longer than a rank may
        stand still.
        """
        meeting, telling, watch = self._meeting, self._telling, self._watch
        if telling is None or watch is None or self._is_cut_off:
            return
        if telling.add(self._key("left")) == meeting.world_size:
            self._remove(telling)
            return
        if not meeting.is_first or self._decision is None:
            return
        end_s = time.monotonic() + meeting.deadline_s
        for _ in self._polls(_go_on, meeting.poll_s(is_awaited=True)):
            if not telling.has(self._key("left")):
                return
            for rank, why in watch.lost(telling, range(1, meeting.world_size), may_go_on=True):
                logger.warning("%s: rank %d did not depart: %s", self._what, rank, why)
                return
            if time.monotonic() > end_s:
                logger.warning("%s: not all ranks departed within %g s", self._what, meeting.deadline_s)
                return

    def _remove(self, telling: Telling) -> None:
        if self._decision is None:  # then what ranks brought may have been left
            for rank in range(1, self._meeting.world_size):
                telling.drop(self._key("arrived", rank))
        telling.drop(self._key("decision"))
        for key in ("verdict", "left"):
            telling.delete(self._key(key))

    # ---- how ----

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, (self.number, *parts)))

    def _check_came(self, rank: int, what: str) -> None:
        """Refuse a rank that has come to another round: it left one out, or takes them in another order."""
        if what == self._what:
            return
        text = f"it came to {what!r} instead: it left one out, or takes part in another order"
        self._tell_failure(rank, text, is_lost=False, is_early=True)
        raise RankFailedError(f"{self._what}: rank {rank} failed: {text}", rank=rank, is_early=True)

    def _wait(self, telling: Telling, signs: Mapping[int, str], progress: Progress) -> None:
        """Wait until all these signs of other ranks are there; fail the round where one cannot come any more."""
        watch = self._watch
        assert watch is not None  # noqa: S101 - made with the connection
        is_verdict = signs.get(0) == self._key("verdict")  # then one question at a look is enough
        for look, _ in enumerate(self._polls(progress, self._meeting.poll_s(is_awaited=not is_verdict))):
            if telling.has(*signs.values()):
                return
            if not is_verdict and look % _LOOKS_PER_VERDICT == _LOOKS_PER_VERDICT - 1:
                self._raise_if_failed()
            for rank, why in watch.lost(telling, list(signs)):
                if not telling.has(signs[rank]):  # it may have come just before its rank died
                    self._tell_failure(rank, why, is_lost=True, is_early=rank != 0)
                    self._has_told = True
                    self._raise_if_failed()

    def _polls(self, progress: Progress, most_s: float) -> Iterator[None]:
        pause_s = max(_LEAST_POLL_S, (most_s - self._meeting.poll_s(is_awaited=True)) / 10)
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
        rank, text, is_early = int(told["rank"]), str(told["text"]), bool(told["is_early"])
        if told["is_lost"]:
            raise RankLostError(f"{self._what}: rank {rank} is lost: {text}", rank=rank, is_early=is_early)
        raise RankFailedError(
            f"{self._what}: rank {rank} failed: {text}",
            rank=rank,
            is_early=is_early,
            is_cancelled=bool(told["is_cancelled"]),
        )

    def _tell_failure(
        self, rank: int, text: str, *, is_lost: bool, is_early: bool, is_cancelled: bool = False
    ) -> None:
        """Tell all others; the first failure that is told is everybody's."""
        if self._telling is None or self._has_told:
            return
        self._has_told = True
        flags = {"is_lost": is_lost, "is_early": is_early, "is_cancelled": is_cancelled}
        told = json.dumps({"rank": rank, "text": text[:_MOST_TEXT], **flags})
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
            self._has_told = self._is_cut_off = True
            raise store_lost(self._what, error) from error


def store_lost(what: str, error: StoreLost) -> RankLostError:
    """What it means that the store cannot be reached."""
    return RankLostError(
        f"{what}: the store through which the ranks meet is gone ({error}). It lives with the first rank, or with "
        "torchrun: that process has ended, or hangs.",
        rank=0,
    )
