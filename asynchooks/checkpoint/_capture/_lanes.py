"""Who copies a capture's bytes, and when the sources may change again.

One idea with two implementations: a lane takes pieces (memory to fill, memory to read), and has an order point,
after which the sources may change, and an end, after which the bytes are there. On the CPU a thread copies, so
both are the thread's end; once somebody waits for the order point, a second one helps. On CUDA a side stream copies:
the order point is a wait of the caller's stream, which costs the caller nothing, and the end is an event. Knows no
state, no snapshot and no step.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, cast

import torch

from asynchooks.errors import CaptureError

__all__ = [
    "CudaStreams",
    "Event",
    "Hold",
    "Lane",
    "Piece",
    "StreamLane",
    "Streams",
    "ThreadLane",
    "copy_at_once",
]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to copy, as two contiguous tensors of one shape and dtype. Holding it keeps both memories."""

    target: torch.Tensor
    source: torch.Tensor


Hold: TypeAlias = Callable[[threading.Event], object]
"""Called on the copying thread before it copies; the event is set once a step waits. For tests that copy late."""

_SHARE_BYTES = 4 * 2**20


class Lane(Protocol):
    """A copy that goes on by itself."""

    def order(self) -> None:
        """Return when what the caller does next to the sources comes after the copy. Any thread."""

    def wait(self) -> None:
        """Block until the bytes are there. Any thread.

        Raises:
            CaptureError: they never will be.
        """


class ThreadLane:
    """Copies in a thread of its own, which ends with the copy, and in a second one once a step waits.

    Never on the thread that waits: a signal's exception there would leave a copy half done.

    Args:
        pieces: on the CPU.
        at_end: called when all is copied, on the thread that copied the last of it.
        hold: see `Hold`.
    """

    def __init__(self, pieces: Sequence[Piece], at_end: Callable[[], None], hold: Hold | None = None) -> None:
        self._shares = deque(_shares(pieces))
        self._left = len(self._shares)
        self._at_end: Callable[[], None] | None = at_end
        self._hold = hold
        self._lock = threading.Lock()
        self._awaited = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._process = os.getpid()
        if not _started(self._run):
            self._copy()

    def order(self) -> None:
        """Wait for the copy; a second thread helps with what nobody has begun to. What failed is told by `wait`."""
        if os.getpid() == self._process:
            self._awaited.set()
            if self._shares:
                _started(self._copy)
            self._ended.wait()

    def wait(self) -> None:
        """Wait for the thread."""
        if os.getpid() != self._process and not self._ended.is_set():
            raise CaptureError(
                "this snapshot belongs to the parent of this forked process; capture again here."
            )
        self._ended.wait()
        if self._error is not None:
            raise CaptureError(f"copying the state failed: {self._error}") from self._error

    def _run(self) -> None:
        if self._hold is not None:
            self._hold(self._awaited)
        self._copy()

    def _copy(self) -> None:
        """Copy what nobody has begun to. Any thread, also several."""
        try:
            while self._left:
                try:
                    share = self._shares.popleft()
                except IndexError:
                    return
                copy_at_once(share)
                with self._lock:
                    self._left -= 1
                    is_last = not self._left
                if is_last:
                    self._end()
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise

    def _end(self, error: BaseException | None = None) -> None:
        at_end, self._at_end = self._at_end, None  # it holds what holds this lane
        if error is None and at_end is not None:
            at_end()
        self._error = error
        self._ended.set()


def _started(function: Callable[[], None]) -> bool:
    """Start a thread, unless there are no more: the interpreter ends, or a limit is reached.

    It is not a daemon: the interpreter waits for a copy, which is short, before it tears torch down. A thread for
    each copy (60 us) needs no owner that stops it.
    """
    try:
        threading.Thread(target=function, name="asynchooks copy").start()
    except RuntimeError:
        return False
    return True


def _shares(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces in lots of some megabytes, large ones cut: small enough that two threads end at about one time."""
    share: list[Piece] = []
    nbytes = 0
    for piece in pieces:
        for part in _cut(piece):
            share.append(part)
            nbytes += part.target.nbytes
            if nbytes >= _SHARE_BYTES:
                yield share
                share, nbytes = [], 0
    if share:
        yield share


def _cut(piece: Piece) -> Iterable[Piece]:
    if piece.target.nbytes < 2 * _SHARE_BYTES:
        return [piece]
    size = _SHARE_BYTES // piece.target.element_size()
    target, source = piece.target.view(-1), piece.source.view(-1)
    return [Piece(target[at : at + size], source[at : at + size]) for at in range(0, target.numel(), size)]


class Event(Protocol):
    """A moment in a stream's work."""

    def synchronize(self) -> None:
        """Block until it has come."""

    def query(self) -> bool:
        """Whether it has come."""


class Streams(Protocol):
    """What a lane needs of a device: the caller's stream, which trains, and one of its own, which copies."""

    def follow(self) -> None:
        """Let the own stream go on after all that the caller's has been given so far."""

    def copy(self, piece: Piece) -> None:
        """Give the own stream a copy to do. The source's memory is not given away before."""

    def mark(self) -> Event:
        """The end of what the own stream was given so far."""

    def hold(self, event: Event) -> None:
        """Let the caller's stream, as it is at this call, go on after an event."""


class StreamLane:
    """Copies from one device on a side stream, into memory that the device can write.

    Args:
        streams: the device's.
        at_once: pieces that what the caller enqueues next already has to find copied: its stream waits.
        later: pieces that `order` is called for.
    """

    def __init__(self, streams: Streams, at_once: Sequence[Piece], later: Sequence[Piece]) -> None:
        self._streams = streams
        streams.follow()
        for piece in at_once:
            streams.copy(piece)
        if at_once:
            streams.hold(streams.mark())
        for piece in later:
            streams.copy(piece)
        self._end = streams.mark()
        _let_go((self._end, [piece.target for piece in (*at_once, *later)]))

    def order(self) -> None:
        """Let the caller's stream wait on the device; its thread goes on."""
        self._streams.hold(self._end)

    def wait(self) -> None:
        """Wait for the device."""
        self._end.synchronize()
        _let_go()


_Writing: TypeAlias = "tuple[Event, list[torch.Tensor]]"

_under_way: list[_Writing] = []  # a device writes there, whoever still wants it
_under_way_lock = threading.Lock()


def _let_go(*new: _Writing) -> None:
    """Give memory back into which no device writes any more, and keep what is written from now on. Any thread."""
    with _under_way_lock:
        _under_way[:] = [*(writing for writing in _under_way if not writing[0].query()), *new]


class CudaStreams:
    """The streams of one CUDA device; the side stream is made once."""

    _sides: ClassVar[dict[torch.device, torch.cuda.Stream]] = {}

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device not in self._sides:
            self._sides[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._side = self._sides[device]

    def follow(self) -> None:
        """See `Streams`."""
        self._side.wait_stream(torch.cuda.current_stream(self._device))

    def copy(self, piece: Piece) -> None:
        """See `Streams`."""
        with torch.cuda.stream(self._side), torch.no_grad():
            piece.target.copy_(piece.source, non_blocking=True)
        piece.source.record_stream(self._side)

    def mark(self) -> Event:
        """See `Streams`."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # a wait sleeps, and does not spin
        event.record(self._side)
        return event

    def hold(self, event: Event) -> None:
        """See `Streams`."""
        torch.cuda.current_stream(self._device).wait_event(cast("torch.cuda.Event", event))


def copy_at_once(pieces: Sequence[Piece]) -> None:
    """Copy pieces from any device in one call, without the GIL and with torch's threads; blocks.

    One call for all takes the GIL once. By memmove, piece by piece in one thread, the same copy beside training
    took 1.1-1.3 times as long and cost the training that much more (2 cores).
    """
    if pieces:
        with torch.no_grad():
            torch._foreach_copy_([piece.target for piece in pieces], [piece.source for piece in pieces])
