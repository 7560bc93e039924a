"""A heart beats until it is stopped, whatever its store does."""

import threading
import time

from asynchooks.distributed._heart import Heart
from asynchooks.distributed._store import Telling


class HangingStore:
    """Keeps the first beats, and holds the one after them until the test lets it go."""

    def __init__(self, beats: int) -> None:
        self.told: list[bytes] = []
        self.is_held = threading.Event()
        self.let_go = threading.Event()
        self._beats = beats

    def set(self, key: str, value: bytes) -> None:
        if len(self.told) == self._beats:
            self.is_held.set()
            self.let_go.wait()
        self.told.append(value)

    def check(self, keys: list[str]) -> bool:
        return True


def test_a_heart_stops_soon_although_a_beat_hangs_in_the_store() -> None:
    store = HangingStore(beats=1)
    heart = Heart(Telling(store, patience_s=8.0), rank=1, deadline_s=0.01)
    heart.enter(0)
    store.is_held.wait()
    began_s = time.monotonic()
    heart.stop()
    stopped_s = time.monotonic() - began_s
    store.let_go.set()

    assert stopped_s < 4.0


def test_the_last_word_of_a_heart_is_that_it_is_closed() -> None:
    store = HangingStore(beats=-1)
    heart = Heart(Telling(store, patience_s=8.0), rank=1, deadline_s=0.001)
    heart.enter(7)
    heart.stop()

    assert store.told[-1] == b"7:closed"
