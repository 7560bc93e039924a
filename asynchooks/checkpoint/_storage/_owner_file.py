"""The one small file of a folder that two processes must not both replace, as well as a store can guard it.

Decides nothing about owners. Where a store has neither locks nor conditional puts, reading before writing is
all there is: two that write in the same instant may both believe that they own the folder, until one of them
reads again before its next commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._storage._store import read_all
from asynchooks.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    from asynchooks.checkpoint._storage._store import Store


__all__ = ["GuardingStore", "OwnerFile", "PlainOwnerFile", "owner_file"]


class OwnerFile(Protocol):
    """A file, read and replaced in turns. Methods block, and raise `CheckpointError` only."""

    def hold(self) -> bool:
        """Keep other processes off, where the store can; False: a live one keeps this one off."""

    def let_go(self) -> None:
        """Keep nobody off any more. May be called again, and without `hold`."""

    def read(self) -> bytes | None:
        """What the file holds; None when there is none."""

    def write(self, text: bytes) -> bool:
        """Replace what was last read; False when it has changed since, as far as the store can tell."""


@runtime_checkable
class GuardingStore(Protocol):
    """A store with something better than reading before writing says so by one more method."""

    def owner_file(self, name: str) -> OwnerFile:
        """The file of that name; opens nothing yet."""


def owner_file(store: Store, name: str) -> OwnerFile:
    """The best that the store offers."""
    return store.owner_file(name) if isinstance(store, GuardingStore) else PlainOwnerFile(store, name)


class PlainOwnerFile:
    """On any store: compares before it writes."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._seen: bytes | None = None

    def hold(self) -> bool:
        """Nothing to hold."""
        return True

    def let_go(self) -> None:
        """Nothing to let go."""

    def read(self) -> bytes | None:
        """Read it."""
        try:
            self._seen = read_all(self._store, self._name)
        except CheckpointNotFoundError:
            self._seen = None
        return self._seen

    def write(self, text: bytes) -> bool:
        """Compare and put; what happens between the two is not noticed here."""
        seen = self._seen
        if self.read() != seen:
            return False
        self._store.put(self._name, Content.of(text))
        self._seen = text
        return True
