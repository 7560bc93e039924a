"""The flight's lock, inside which Ctrl-C waits until the books are whole again.

A KeyboardInterrupt can come between any two instructions of the main thread. Between "the part is noted" and "the
part is placed in the order" it would leave a part that nobody ever starts, and the drain that follows would wait
for it for ever. So, while an executor is open and the program has not installed a handler of its own, SIGINT is
held back inside the lock and raised when it is left. And since Python ignores what is raised in the callback of a
weak reference (torch has one at the end of each backward pass, where a Ctrl-C that came during it is raised), a
KeyboardInterrupt that ends so is sent again.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Critical", "interrupts"]

_SEND_AGAIN_S = 0.01


class _Interrupts:
    """Holds SIGINT back on the main thread; everything else about it stays Python's."""

    def __init__(self) -> None:
        self._users = 0
        self._depth = 0
        self._pending = False
        self._waiting_on: threading.Lock | None = None
        self._unraisable_hook: Callable[[UnraisableHookArgs], object] = sys.unraisablehook

    def install(self) -> None:
        """Start holding, if this is the main thread and the handler is Python's own. Pairs with `remove`."""
        if not _on_main_thread():
            return
        self._users += 1
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)
            self._unraisable_hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable

    def remove(self) -> None:
        """Give the handler back when the last user goes."""
        if not _on_main_thread():
            return
        self._users -= 1
        # bound methods compare equal, not identical
        if self._users == 0 and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._users == 0 and sys.unraisablehook == self._on_unraisable:
            sys.unraisablehook = self._unraisable_hook

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold interrupts back for the length of a block, which must be short."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def hold(self) -> None:
        """Hold interrupts back from now on."""
        if _on_main_thread():
            self._depth += 1

    def let_go(self) -> None:
        """Let interrupts through again, beginning with one that came meanwhile."""
        if _on_main_thread():
            self._depth -= 1
            if self._depth == 0:
                self.raise_pending()

    def raise_pending(self) -> None:
        """Raise the interrupt that was held back, if there is one."""
        if self._pending and _on_main_thread():
            self._pending = False
            raise KeyboardInterrupt

    def wait(self, wake: threading.Lock, timeout: float | None) -> None:
        """Block until ``wake`` can be taken, the time is up, or a signal comes; never raises KeyboardInterrupt.

        What the program's own signal handlers raise (``sys.exit`` at SIGTERM, say) comes through.
        """
        if not _on_main_thread():
            wake.acquire(timeout=-1 if timeout is None else timeout)
            return
        self._waiting_on = wake
        try:
            if not self._pending:
                wake.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            self._waiting_on = None

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        if not self._depth:
            raise KeyboardInterrupt
        self._pending = True
        if self._waiting_on is not None:
            _release(self._waiting_on)

    def _on_unraisable(self, ignored: UnraisableHookArgs) -> None:
        """Called where Python ignores an exception: in callbacks and finalizers, perhaps with locks held."""
        if ignored.exc_type is KeyboardInterrupt and _on_main_thread():
            _thread.start_new_thread(_send_again, ())  # takes no lock, as threading.Thread would
        else:
            self._unraisable_hook(ignored)


def _send_again() -> None:
    time.sleep(_SEND_AGAIN_S)  # the callback must have ended, or the next one is ignored too
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


interrupts = _Interrupts()


class Critical:
    """A lock, and a wait for a notification inside it, for one waiter at a time; not re-entrant.

    Not a `threading.Condition`: when its wait is interrupted by a signal, it may come back without the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Lock()
        self._wake.acquire()

    def __enter__(self) -> None:
        interrupts.hold()
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
        interrupts.let_go()

    def wait(self, timeout: float | None) -> None:
        """Wait for a notification; may return early. What a signal raises is raised with the lock held."""
        self._lock.release()
        try:
            interrupts.wait(self._wake, timeout)
        finally:
            self._lock.acquire()
        interrupts.raise_pending()

    def notify(self) -> None:
        """Wake the waiter, or the next one."""
        _release(self._wake)


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # released already: whoever waits will wake
        lock.release()


def _on_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
