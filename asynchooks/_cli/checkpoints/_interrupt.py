"""What a Ctrl-C (or SIGTERM) may interrupt, and that it does.

A store's client may wait in native code, where Python delivers no signal: a thread watches for one, and ends the
process when the command has not ended by itself. While something is being deleted, the first signal waits for the end
of a step, and the second does not.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Terminated", "interruptible", "uninterrupted"]

_GRACE_S = 1.0
_SHOW_CURSOR = "\x1b[?25h"
_HELD = (signal.SIGINT, signal.SIGTERM)

_holding = threading.Event()


class Terminated(BaseException):
    """SIGTERM came while `uninterrupted`."""


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process soon after a Ctrl-C, wherever the main thread is. Only on the main thread."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(ours,), daemon=True, name="interrupts")
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        pythons.close()  # the watcher reads the end
        watcher.join()
        ours.close()


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Hold back the first Ctrl-C or SIGTERM; what is yielded raises it, where nothing is half done."""
    caught: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise _interruption(number)
        typer.echo("Finishing what has begun; once more to stop at once.", err=True)

    def stop_here() -> None:
        if caught:
            raise _interruption(caught[0])

    before = {number: signal.signal(number, hold) for number in _HELD}
    _holding.set()
    try:
        yield stop_here
    finally:
        _holding.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
    stop_here()


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()


def _watch(signals: socket.socket) -> None:
    """Count the signals; end the process when they are enough and the command goes on all the same."""
    count = 0
    while numbers := signals.recv(1):
        if numbers[0] not in _HELD:
            continue
        count += 1
        if count == 1 and _holding.is_set():
            continue
        signals.settimeout(_GRACE_S)
        try:
            while signals.recv(1):
                pass
        except TimeoutError:
            _end_at_once(numbers[0])
        return


def _end_at_once(number: int) -> None:
    sys.stderr.write(
        f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}\nInterrupted while the store did not answer.\n"
    )
    sys.stderr.flush()
    os._exit(128 + number)
