"""Which executors are open on which thread, and what a fork does to them: the child gets closed ones."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

__all__ = ["OpenExecutors"]


class _Closable(Protocol):
    def close_in_forked_child(self) -> None: ...


_Executor = TypeVar("_Executor", bound=_Closable)


class OpenExecutors(Generic[_Executor]):
    """Remembers open executors without keeping them alive.

    Attributes:
        are_several: more than one is open, on any thread.
    """

    def __init__(self) -> None:
        self.are_several = False
        self._all: weakref.WeakSet[_Executor] = weakref.WeakSet()
        self._here = threading.local()
        os.register_at_fork(after_in_child=self._close_in_child)

    def add(self, executor: _Executor) -> None:
        """Remember an executor that was entered on this thread."""
        self._all.add(executor)
        self._stack().append(weakref.ref(executor))
        self.are_several = len(self._all) > 1

    @contextmanager
    def foremost(self, executor: _Executor) -> Iterator[None]:
        """Make an executor the innermost on this thread, while it calls hooks."""
        self._stack().append(weakref.ref(executor))
        try:
            yield
        finally:
            self._stack().pop()

    def discard(self, executor: _Executor) -> None:
        """Forget an executor that was closed on this thread."""
        self._all.discard(executor)
        stack = self._stack()
        stack[:] = [reference for reference in stack if reference() not in (executor, None)]
        self.are_several = len(self._all) > 1

    def innermost(self) -> _Executor | None:
        """Return the one that calls a hook on this thread now, or else the one entered last."""
        stack = self._stack()
        return stack[-1]() if stack else None

    def _stack(self) -> list[weakref.ref[_Executor]]:
        stack: list[weakref.ref[_Executor]] | None = getattr(self._here, "stack", None)
        if stack is None:
            stack = self._here.stack = []
        return stack

    def _close_in_child(self) -> None:
        for executor in list(self._all):
            executor.close_in_forked_child()
        self._all.clear()
        self._stack().clear()
        self.are_several = False
