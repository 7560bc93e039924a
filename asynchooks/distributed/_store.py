"""One connection to the store through which ranks tell each other.

Decides what of torch's stores is used, and that whatever they raise means one thing: the store cannot be reached any
more. Knows nothing of what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from torch._C._distributed_c10d import PrefixStore

__all__ = ["StoreLost", "Telling"]

T = TypeVar("T")


class StoreLost(Exception):  # noqa: N818 - a state, turned into an error by who knows what it means
    """The store cannot be reached."""


@dataclass(frozen=True, slots=True)
class Telling:
    """A connection of its own, under a prefix: one thread waits for an answer, and no other with it.

    Values are set without an answer; what is set is there for all others when the next question on this connection
    has been answered.
    """

    _store: Any

    @classmethod
    def on(cls, store: Any, name: str) -> Self:
        """Connect once more.

        Raises:
            StoreLost: nobody answers.
        """
        clone: Callable[[], Any] | None = getattr(store, "clone", None)
        return cls(PrefixStore(f"asynchooks/{name}", store if clone is None else _heard(clone)))

    def set(self, key: str, value: bytes) -> None:
        """Set a value."""
        _heard(self._store.set, key, value)

    def get(self, key: str) -> bytes:
        """A value that is there."""
        return bytes(_heard(self._store.get, key))

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        """Values that are there."""
        return [bytes(value) for value in _heard(self._store.multi_get, list(keys))]

    def has(self, *keys: str) -> bool:
        """Whether values of all these keys are there."""
        return bool(_heard(self._store.check, list(keys)))

    def add(self, key: str) -> int:
        """Count one more; returns how many by now."""
        return int(_heard(self._store.add, key, 1))

    def settle(self, key: str, value: bytes) -> bytes:
        """Set a value where there is none; returns the one that stands. ASCII alone."""
        text = value.decode("ascii")
        return bytes(_heard(self._store.compare_set, key, "", text))

    def delete(self, key: str) -> None:
        """Remove a value."""
        _heard(self._store.delete_key, key)


def _heard(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    except RuntimeError as error:  # torch's DistError is one
        raise StoreLost(str(error).partition("\n")[0]) from error
