"""One connection to the store through which ranks tell each other.

Decides what of torch's stores is used, how long an answer may take, how a large value is told, and that whatever goes
wrong means one thing: the store cannot be reached any more. Knows nothing of what is told.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from torch._C._distributed_c10d import PrefixStore

__all__ = ["StoreLost", "Telling"]

T = TypeVar("T")

_PIECE_BYTES = 4 * 2**20  # a TCPStore refuses values above 8 MB


class StoreLost(Exception):  # noqa: N818 - a state, turned into an error by who knows what it means
    """The store cannot be reached."""


class Telling:
    """A connection of its own, under a prefix: one thread waits for an answer, and no other with it.

    Values are set without an answer; what is set is there for all others when the next question on this connection
    has been answered. A store whose process hangs answers nothing, and torch waits for it without end: so a thread of
    the connection's own does the calls, and who asks waits for it no longer than ``patience_s``.
    """

    def __init__(self, store: Any, patience_s: float) -> None:
        self._store = store
        self._patience_s = patience_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._silence: str | None = None  # why nothing is asked any more
        # a daemon: it may hang in a call when the process ends
        threading.Thread(target=_serve, args=(self._calls,), name="asynchooks store", daemon=True).start()

    @classmethod
    def on(cls, store: Any, name: str, *, patience_s: float) -> Self:
        """Connect once more.

        Raises:
            StoreLost: nobody answers.
        """
        telling = cls(None, patience_s)
        clone: Callable[[], Any] | None = getattr(store, "clone", None)
        try:
            own = store if clone is None else telling._ask(clone)
        except StoreLost:
            telling.close()
            raise
        telling._store = PrefixStore(f"asynchooks/{name}", own)
        return telling

    def close(self) -> None:
        """Let the connection go; what is asked afterwards fails at once."""
        self._silence = self._silence or "this process has closed its connection"
        self._calls.put(None)

    def hurry(self, patience_s: float) -> None:
        """Wait for no answer longer than this from now on."""
        self._patience_s = min(self._patience_s, patience_s)

    def set(self, key: str, value: bytes) -> None:
        """Set a small value."""
        self._ask(self._store.set, key, value)

    def get(self, key: str) -> bytes:
        """A small value that is there."""
        return bytes(self._ask(self._store.get, key))

    def put(self, key: str, value: bytes) -> None:
        """Set a value of any size: where the key is there, all of it is."""
        rest = range(_PIECE_BYTES, len(value), _PIECE_BYTES)
        for number, start in enumerate(rest):
            self.set(f"{key}/{number}", value[start : start + _PIECE_BYTES])
        self.set(key, f"{len(rest)}\n".encode() + value[:_PIECE_BYTES])

    def read(self, key: str) -> bytes:
        """A value that was `put`."""
        pieces, _, first = self.get(key).partition(b"\n")
        return first + b"".join(self.get(f"{key}/{number}") for number in range(int(pieces)))

    def drop(self, key: str) -> None:
        """Remove a value that was `put`; nothing where there is none."""
        if not self.has(key):
            return
        pieces = int(self.get(key).partition(b"\n")[0])
        for each in (key, *(f"{key}/{number}" for number in range(pieces))):
            self.delete(each)

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        """Small values that are there."""
        return [bytes(value) for value in self._ask(self._store.multi_get, list(keys))]

    def has(self, *keys: str) -> bool:
        """Whether values of all these keys are there."""
        return bool(self._ask(self._store.check, list(keys)))

    def add(self, key: str) -> int:
        """Count one more; returns how many by now."""
        return int(self._ask(self._store.add, key, 1))

    def settle(self, key: str, value: bytes) -> bytes:
        """Set a value where there is none; returns the one that stands. ASCII alone."""
        text = value.decode("ascii")
        return bytes(self._ask(self._store.compare_set, key, "", text))

    def delete(self, key: str) -> None:
        """Remove a small value."""
        self._ask(self._store.delete_key, key)

    def _ask(self, method: Callable[..., T], *arguments: Any) -> T:
        if self._silence is not None:
            raise StoreLost(self._silence)
        call = _Call(method, arguments)
        self._calls.put(call)
        if not call.is_done.wait(self._patience_s):
            self._silence = f"it has not answered for {self._patience_s:g} s"
            raise StoreLost(self._silence)
        if call.error is not None:
            if isinstance(call.error, RuntimeError):  # torch's DistError is one
                raise StoreLost(str(call.error).partition("\n")[0]) from call.error
            raise call.error
        result: T = call.result
        return result


@dataclass(slots=True)
class _Call:
    method: Callable[..., Any]
    arguments: tuple[Any, ...]
    is_done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


def _serve(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call.result = call.method(*call.arguments)
        except BaseException as error:  # noqa: BLE001 - who asked raises it
            call.error = error
        call.is_done.set()
        del call  # which holds a value, until the next one comes
