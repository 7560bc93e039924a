"""Blocking storage calls under an event loop: given up when cancelled, never waited for without an end.

Decides when to stop waiting: on cancellation the running call is told to stop and gets a grace period; a call
that makes no progress for the deadline is abandoned. A thread cannot be killed: an abandoned one ends when
its system call does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import CancelScope, to_thread

from asynchooks.checkpoint._storage import Stopped
from asynchooks.errors import StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Transfer"]

T = TypeVar("T")


class Transfer:
    """The calls of one save. Made and used on the event loop; what says so is called on worker threads.

    Args:
        what: names the work and the place in messages.
        deadline_s: longest time without progress.
        grace_s: longest time that a stoppable call may take to stop.
    """

    def __init__(self, what: str, *, deadline_s: float, grace_s: float = 10.0) -> None:
        self._what = what
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._moved_bytes = 0
        self._stop = False
        self._scope: CancelScope | None = None
        self._stoppable = False
        self._abandoned = False
        self._is_patient = False

    @property
    def has_abandoned(self) -> bool:
        """Whether a call was left behind: what it was to do may still happen, at any time."""
        return self._abandoned

    def progress(self, nbytes: int) -> None:
        """Count what the store took. Called on the worker thread; raises to stop the call."""
        if self._stop:
            raise Stopped
        self.moved(nbytes)

    def moved(self, nbytes: int) -> None:
        """Count as `progress` does; stop the call only where it was left behind, and nobody waits for it any more."""
        if self._abandoned:
            raise Stopped
        self._moved_bytes += nbytes

    def must_finish(self) -> None:
        """Have the running call finish from now on, even if the save is cancelled. Called on the worker thread.

        Raises:
            Stopped: it is cancelled already.
        """
        self.progress(1)
        self._stoppable = False

    def be_patient(self) -> None:
        """Set the running call no deadline any more: it waits for other processes, and knows how long. Any thread."""
        self._is_patient = True

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run the whole work shielded: cancellation stops the stoppable call in it, and nothing else.

        Raises:
            the work's own exception; after a cancellation, the cancellation.
        """
        results: list[T] = []
        failures: list[Exception] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            with CancelScope(shield=True):
                try:
                    results.append(await work())
                except Exception as error:  # noqa: BLE001 - carried out of the task group, which would wrap it; raised below
                    failures.append(error)
            group.cancel_scope.cancel()
        if failures and isinstance(failures[0], Stopped):
            await anyio.lowlevel.checkpoint_if_cancelled()
        if failures:
            raise failures[0]
        return results[0]

    async def call(
        self,
        function: Callable[[], T],
        *,
        stoppable: bool = False,
        left_behind: Callable[[Exception], None] | None = None,
    ) -> T:
        """Run one blocking call in a worker thread. Only inside `run`.

        Args:
            function: the call.
            stoppable: whether a cancellation stops it.
            left_behind: called in another worker thread when the call is abandoned, with the error.
        """
        if stoppable and self._stop:
            raise Stopped
        with CancelScope(shield=True) as scope:
            self._scope, self._stoppable = scope, stoppable
            scope.deadline = anyio.current_time() + self._deadline_s
            try:
                return await to_thread.run_sync(function, abandon_on_cancel=True)
            finally:
                self._scope = None
        self._abandoned = True
        error: Exception = StorageUnavailableError(
            f"{self._what}: the store made no progress for {self._deadline_s:g} s; gave up waiting. "
            "Check that it is up and reachable, or raise deadline_s."
        )
        if self._stop and stoppable:
            error = Stopped()
        if left_behind is not None:
            await self.call(partial(left_behind, error))
        raise error

    async def _watch(self) -> None:
        """Move the running call's deadline on as long as bytes move; stop it when the save is cancelled."""
        moved_bytes = 0
        try:
            while True:
                await anyio.sleep(self._deadline_s / 10)
                if self._scope is not None and (self._moved_bytes != moved_bytes or self._is_patient):
                    moved_bytes = self._moved_bytes
                    self._scope.deadline = anyio.current_time() + self._deadline_s
        finally:
            self._stop = True
            if self._scope is not None and self._stoppable:
                self._scope.deadline = min(self._scope.deadline, anyio.current_time() + self._grace_s)
