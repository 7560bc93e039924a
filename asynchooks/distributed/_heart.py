"""Whether ranks live: each beats, and whoever waits for another watches its heart.

Decides how often a rank beats and when one that stands still is lost. A heart says that the process runs, and which
round it is in; whether its work gets on is for the work's own deadline to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from asynchooks.distributed._store import StoreLost, Telling

__all__ = ["Heart", "Watch"]

logger = logging.getLogger(__name__)

_BEATS_PER_DEADLINE = 10
_CLOSED = "closed"
_STOP_S = 1.0


class Heart:
    """Beats in a thread of its own, until it is stopped or the store is gone.

    Args:
        telling: a connection for this thread alone.
        rank: whose heart it is.
        deadline_s: after which it would be lost.
    """

    def __init__(self, telling: Telling, rank: int, deadline_s: float) -> None:
        self._telling = telling
        self._key = _key(rank)
        self._interval_s = deadline_s / _BEATS_PER_DEADLINE
        self._round = -1
        self._count = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        # a daemon: a process that ends without closing must end
        self._thread = threading.Thread(target=self._run, name="asynchooks heart", daemon=True)

    def enter(self, number: int) -> None:
        """Say which round this rank is in; starts the heart the first time.

        Raises:
            StoreLost: nobody hears it.
        """
        self._round = number
        self._beat()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop beating, and say so: who waits for this rank in a round that it never entered waits no longer.

        Blocks for a moment, also where the store hangs.
        """
        self._stopped.set()
        self._telling.hurry(_STOP_S)
        is_free = self._lock.acquire(timeout=_STOP_S)  # else a beat hangs, and nothing would be heard
        try:
            if is_free:
                self._telling.set(self._key, f"{self._round}:{_CLOSED}".encode())
                self._telling.has(self._key)  # answered: it is there
        except StoreLost as error:
            logger.debug("rank's heart stopped unheard: %s", error)
        finally:
            self._telling.close()  # before the lock is free: no beat comes after the last word
            if is_free:
                self._lock.release()
        if is_free and self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._beat()
            except StoreLost:  # whoever waits for an answer there hears it
                return

    def _beat(self) -> None:
        with self._lock:
            self._count += 1
            self._telling.set(self._key, f"{self._round}:{self._count}".encode())


@dataclass(slots=True)
class _Seen:
    beat: bytes
    since_s: float
    number: int


class Watch:
    """Watches the hearts of others during one round, seldom.

    Args:
        deadline_s: a heart that stands still for so long is a lost rank's.
        absent_s: longest time until a rank that lives enters the round.
        number: of the round.
    """

    def __init__(self, deadline_s: float, absent_s: float, number: int) -> None:
        self._deadline_s = deadline_s
        self._absent_s = absent_s
        self._number = number
        self._began_s = time.monotonic()
        self._looked_s = self._began_s
        self._seen: dict[int, _Seen] = {}

    def lost(
        self, telling: Telling, ranks: Sequence[int], *, may_go_on: bool = False
    ) -> list[tuple[int, str]]:
        """Those of these ranks that are lost, and why; none where it is too early to look again.

        Args:
            telling: the connection.
            ranks: that are awaited.
            may_go_on: whether a rank that is in a later round has done its part of this one.

        Raises:
            StoreLost: the store is gone.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < self._deadline_s / _BEATS_PER_DEADLINE:
            return []
        self._looked_s = now_s
        keys = [_key(rank) for rank in ranks]
        if telling.has(*keys):
            beats = telling.get_all(keys)
        else:  # some have never beaten
            beats = [telling.get(key) if telling.has(key) else b"" for key in keys]
        reasons = [
            (rank, self._why_lost(rank, beat, now_s, may_go_on))
            for rank, beat in zip(ranks, beats, strict=True)
        ]
        return [(rank, why) for rank, why in reasons if why is not None]

    def _why_lost(self, rank: int, beat: bytes, now_s: float, may_go_on: bool) -> str | None:  # noqa: FBT001
        seen = self._seen.get(rank)
        if seen is None or seen.beat != beat:
            number = int(beat.partition(b":")[0]) if beat else -1
            seen = self._seen[rank] = _Seen(beat, now_s if beat else self._began_s, number)
        if seen.number > self._number:
            return (
                None
                if may_go_on
                else "it went on to a later round, and neither came to this one nor skipped it"
            )
        is_here = seen.number == self._number
        if not is_here and beat.endswith(_CLOSED.encode()):
            return "it has closed its part of the rendezvous, and did not come"
        still_s, absent_s = now_s - seen.since_s, now_s - self._began_s
        if still_s > self._deadline_s:
            return f"its process gave no sign of life for {still_s:.1f} s (deadline_s={self._deadline_s:g})"
        if not is_here and absent_s > self._absent_s:
            return f"it lives, but did not come for {absent_s:.1f} s (absent_s={self._absent_s:g})"
        return None


def _key(rank: int) -> str:
    return f"heart/{rank}"
