"""The way from the training thread into the event loop: one thread, one loop, one queue, one wake-up.

Decides how a job gets across cheaply: a deque, and a byte through a socket pair when the loop sleeps (an answer
from the loop, as a blocking portal gives, costs the training thread ten times as much). Knows nothing of hooks.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

__all__ = ["Job", "Portal"]

logger = logging.getLogger(__name__)

Job: TypeAlias = Callable[[anyio.CancelScope], Awaitable[None]]

# How often a sleeping loop looks whether the main thread has ended without closing the executor.
_ORPHAN_CHECK_S = 1.0
_RESTART_S = 0.05
# Python code in the background takes the GIL from a training thread that launches small ops, for one switch
# interval at each op. A short interval bounds that loss; well-behaved background work does not notice.
_SWITCH_INTERVAL_S = 50e-6


class Portal:
    """Owns a thread that is no daemon, with one anyio event loop and one task group in it.

    Jobs must not raise; each gets its own cancel scope. Worker threads of the loop's default limiter serve
    blocking I/O. When the main thread ends while the portal is open, the portal finishes what is in flight,
    says so with a `ResourceWarning`, and ends. When a job tears the loop down all the same (a ``SystemExit`` in
    a task of its own), the others in it are cancelled, and a new loop goes on with what has not begun.
    """

    def __init__(self, *, workers: int, on_orphaned: Callable[[], None]) -> None:
        self._workers = workers
        self._on_orphaned = on_orphaned
        self._queue: deque[Job] = deque()
        self._not_begun: dict[int, Job] = {}
        self._sleeping = False
        self._cancelling = False
        self._stopping = False
        self._orphaned = False
        self._running = 0
        self._scopes: set[anyio.CancelScope] = set()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="asynchooks-portal", daemon=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hand a job over. Called on any thread; does not block."""
        self._queue.append(job)
        self._wake()

    def cancel(self) -> None:
        """Cancel every job, those that come later included. Called on any thread; does not block."""
        self._cancelling = True
        self._wake(always=True)

    def stop(self) -> None:
        """End the loop when its jobs have ended, and join the thread."""
        self._stopping = True
        self._wake(always=True)
        self._thread.join()

    def orphan(self) -> None:
        """End the loop when its jobs have ended, since nobody will stop it. Called on any thread, its own too."""
        self._orphaned = True
        self._wake(always=True)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def forget(self) -> None:
        """Let go of a portal whose thread stayed behind in the parent of this forked process."""
        self._close_sockets()
        _short_switch_interval.reset()

    def _close_sockets(self) -> None:
        self._sender.close()
        self._receiver.close()

    def _wake(self, *, always: bool = False) -> None:
        if self._sleeping or always:
            self._sleeping = False
            with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
                self._sender.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._has_ended:
                try:
                    anyio.run(self._main)
                except BaseException:
                    logger.exception(
                        "a background part tore the event loop down; a new one takes over what has not begun"
                    )
                    self._running = 0
                    self._scopes.clear()
                    self._queue.extendleft(reversed(self._not_begun.values()))
                    self._not_begun.clear()
                    time.sleep(_RESTART_S)  # a loop that cannot even start must not spin
        finally:
            self._close_sockets()
        if self._orphaned:
            self._on_orphaned()
        elif not self._stopping:
            self._on_orphaned()
            warnings.warn(
                "a HookExecutor was never closed; its background parts were finished at the end of the "
                "program. Use it as a context manager, or call close().",
                ResourceWarning,
                stacklevel=1,
            )

    async def _main(self) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = self._workers
        async with anyio.create_task_group() as tasks:
            while not self._has_ended:
                while self._queue:
                    job = self._queue.popleft()
                    self._running += 1
                    self._not_begun[id(job)] = job
                    tasks.start_soon(self._guard, job)
                if self._cancelling:
                    for scope in self._scopes:
                        scope.cancel()
                await self._wait_woken()

    @property
    def _has_ended(self) -> bool:
        nobody_comes = self._stopping or self._orphaned or not threading.main_thread().is_alive()
        return nobody_comes and not self._running and not self._queue

    async def _wait_woken(self) -> None:
        self._sleeping = True
        if not self._queue:
            with anyio.move_on_after(_ORPHAN_CHECK_S):
                await anyio.wait_readable(self._receiver)
                with contextlib.suppress(BlockingIOError):
                    self._receiver.recv(4096)
        self._sleeping = False

    async def _guard(self, job: Job) -> None:
        del self._not_begun[id(job)]
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._cancelling:
                scope.cancel()
            _short_switch_interval.enter()
            try:
                await job(scope)
            finally:
                _short_switch_interval.leave()
                self._scopes.discard(scope)
                self._running -= 1
                if self._stopping or self._orphaned:
                    self._wake(always=True)


class _ShortSwitchInterval:
    """Shortens the interpreter's thread switch interval while anything is in flight, in any portal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 0.0

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, _SWITCH_INTERVAL_S))

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setswitchinterval(self._before)

    def reset(self) -> None:
        """Restore the interval in a forked child: those who shortened it stayed behind."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            sys.setswitchinterval(self._before)


_short_switch_interval = _ShortSwitchInterval()
