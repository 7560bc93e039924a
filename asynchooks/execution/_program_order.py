"""Program order: keys that sort as an inline run would have run things. Pure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynchooks.execution._scoreboard import Key

__all__ = ["ProgramOrder"]


class ProgramOrder:
    """Hands out keys: invocations of the training thread one after the other, children after their parent.

    A key is taken when an inline run would run the part: after its capture, hence after everything that was
    fired inside the capture.
    """

    def __init__(self) -> None:
        self._places: list[tuple[Key, int]] = [((), 0)]

    def next(self) -> Key:
        """Return the next key on the training thread."""
        prefix, number = self._places[-1]
        self._places[-1] = (prefix, number + 1)
        return (*prefix, number)

    def next_turn(self) -> tuple[Key, bool]:
        """Return the key of a blocking method, and whether nothing comes after it so far.

        Inside a deferred method there are parts in flight that come after. What is fired inside such a turn is
        placed before it, as inside a deferred method, so that it does not wait for what it is a part of.
        """
        is_last = len(self._places) == 1
        key = self.next()
        return (key, True) if is_last else ((*key, 1), False)

    @property
    def here(self) -> Key:
        """Where the training thread stands: what has a smaller key comes before whatever it does next."""
        prefix, number = self._places[-1]
        return (*prefix, number)

    @staticmethod
    def child(parent: Key, number: int) -> Key:
        """Return the key of what a background part fired: after it, before whatever follows it."""
        return (*parent, number, 1)

    @contextmanager
    def before(self, child: Key) -> Iterator[None]:
        """While a child's foreground runs, hand out keys just before the child's own."""
        self._places.append(((*child[:-1], 0), 0))
        try:
            yield
        finally:
            self._places.pop()
