"""A running writer process: started, given puts, watched, ended.

Decides when a writer process counts as lost: when it has ended, or has said nothing for the deadline; it is then
killed, which also ends what it had begun. Starts it as a program of its own, since a fork would copy the state of
torch and of threads; in a session of its own, so that Ctrl-C ends no commit. Whatever it says on standard error is
kept, for the error that tells of its end. Credentials go over the socket alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from asynchooks import errors
from asynchooks.checkpoint._capture._staging import shared_staging
from asynchooks.checkpoint._storage._store import ALONE, Share
from asynchooks.checkpoint._storage._wire import Wire, WireClosedError
from asynchooks.errors import AsyncHooksError, CheckpointError, ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._storage._store import Progress

__all__ = ["Writer", "WriterLostError", "WriterStartError"]

_PROGRAM = "asynchooks.checkpoint._storage._writer_program"
_START_S = 60.0
_STOP_S = 8.0
_END_S = 2.0
_TICK_S = 0.5
_LOG_BYTES = 64 * 1024


class WriterStartError(Exception):
    """A writer process does not start; never leaves the package."""


class WriterLostError(Exception):
    """A writer process ended or went silent in the middle of a put; never leaves the package.

    Attributes:
        is_silent: it went silent, as the store under it may have.
    """

    def __init__(self, message: str, *, is_silent: bool = False) -> None:
        super().__init__(message)
        self.is_silent = is_silent


class Writer:
    """One process, and this end of its socket. One thread at a time; ended when it is collected.

    Args:
        process: the running program.
        end: this end of its socket.
        log: a memory file that holds what it says on standard error.
        deadline_s: longest time that it may say nothing.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], end: socket.socket, log: int, *, deadline_s: float
    ) -> None:
        self._process = process
        self._end = end
        self._wire = Wire(end, timeout_s=deadline_s)
        self._log = log
        self._deadline_s = deadline_s
        self._orders = 0
        self._finalizer = weakref.finalize(self, _end, process, end, log)
        _writers.add(self)

    @classmethod
    def start(cls, description: Mapping[str, Any], *, deadline_s: float, python: str) -> Writer:
        """Start one, and wait until it is ready.

        Raises:
            WriterStartError: it does not start; the text says why.
        """
        if not python or getattr(sys, "frozen", False):
            raise WriterStartError("this program has no Python interpreter of its own")
        if not hasattr(os, "memfd_create"):
            raise WriterStartError("this system cannot share memory by descriptor")
        try:
            process, end, log = _started(python)
        except OSError as error:
            raise WriterStartError(str(error)) from error
        writer = cls(process, end, log, deadline_s=deadline_s)
        try:
            writer._wire.send(description)
            writer._receive(min(_START_S, deadline_s), lambda: None)
        except (WireClosedError, WriterLostError) as error:
            reason = writer._epitaph(error)
            writer.end()
            raise WriterStartError(reason) from error
        except BaseException:
            writer.end()
            raise
        return writer

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_ended(self) -> bool:
        """Whether it takes no more puts."""
        return not self._finalizer.alive

    def put(
        self,
        name: str,
        content: Content,
        progress: Progress,
        before_visible: Callable[[], None],
        *,
        inside: Sequence[str] = (),
        share: Share = ALONE,
    ) -> AsyncHooksError | None:
        """Have it write a whole file, and return the store's error if there is one.

        `inside` names the folder in the store that it has opened, one component after the other; `share`
        which of the processes this is that write there.

        Raises:
            WriterLostError: it ended or went silent; it is gone now.
            whatever `progress` or `before_visible` raise, after the put was stopped and has cleaned up.
        """
        self._orders += 1
        put = _Put(self._orders, self._wire, progress, before_visible)
        try:
            os.ftruncate(self._log, 0)
            self._order(name, content, inside, share)
            failure = self._serve(put)
        except WireClosedError as error:
            reason = self._epitaph(error)
            self.end()
            raise put.refusal or WriterLostError(reason) from error
        except WriterLostError as error:
            self.end(is_wanted=False)
            raise put.refusal or error from None
        except BaseException:
            self.end()
            raise
        if failure is not None and put.refusal is not None:
            raise put.refusal
        return failure

    def end(self, *, is_wanted: bool = True) -> None:
        """End it; `is_wanted`: it may clean up first, which takes no longer than a moment."""
        if not is_wanted:
            self._process.kill()
        self._finalizer()

    def forget(self) -> None:
        """In a forked child: the process is the parent's, and must see its socket close when the parent ends."""
        if self._finalizer.detach() is not None:
            self._end.close()
            os.close(self._log)
            self._process.returncode = 0  # else its finalizer would ask for the end of somebody else's child

    def _serve(self, put: _Put) -> AsyncHooksError | None:
        """Answer what the program asks until it has ended the put."""
        while True:
            fields = self._receive(
                self._deadline_s if put.refusal is None else min(_STOP_S, self._deadline_s), put.tick
            )
            match fields:
                case {"progress": int(nbytes)}:
                    put.tell(nbytes)
                case {"may_appear": _}:
                    put.decide()
                case {"done": _}:
                    return None
                case {"error": str(kind), "text": str(text)}:
                    return _error(kind, text)
                case _:
                    raise WireClosedError(f"it said {fields}")

    def _order(self, name: str, content: Content, inside: Sequence[str], share: Share) -> None:
        """The order, with the descriptors of shared memory instead of the bytes in it."""
        staging = shared_staging()
        pieces: list[tuple[int, int, int]] = []
        descriptors: list[int] = []
        body: list[memoryview] = []
        for buffer in content.buffers:
            place = staging.place_of(buffer)
            if place is None:
                pieces.append((-1, 0, buffer.nbytes))
                body.append(buffer)
            else:
                if place.descriptor not in descriptors:
                    descriptors.append(place.descriptor)
                pieces.append((descriptors.index(place.descriptor), place.offset, buffer.nbytes))
        self._wire.send(
            {
                "put": name,
                "inside": inside,
                "share": [share.writer, share.writers],
                "id": self._orders,
                "pieces": pieces,
            },
            descriptors=descriptors,
            body=body,
        )

    def _receive(self, limit_s: float, tick: Callable[[], object]) -> Mapping[str, Any]:
        """The next message; `tick` is called now and then until it comes."""
        limit = time.monotonic() + limit_s
        while not self._wire.is_readable(min(_TICK_S, limit_s)):
            if self._process.poll() is not None:
                raise WireClosedError
            if time.monotonic() > limit:
                raise WriterLostError(
                    f"the writer process said nothing for {limit_s:g} s and was ended", is_silent=True
                )
            tick()
        return self._wire.receive().fields

    def _epitaph(self, error: Exception) -> str:
        """How it ended, and the last line that it said."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            end = f"does not answer ({error})"
        else:
            end = f"was ended by {_signal(-status)}" if status < 0 else f"ended with status {status}"
        lines = os.pread(self._log, _LOG_BYTES, max(0, os.fstat(self._log).st_size - _LOG_BYTES)).split(b"\n")
        said = next((line.decode(errors="replace").strip() for line in reversed(lines) if line.strip()), "")
        return f"the writer process {end}" + (f"; it last said: {said}" if said else "")


class _Put:
    """What the caller of one put says to the program's questions; after a refusal it is asked nothing more."""

    def __init__(
        self, number: int, wire: Wire, progress: Progress, before_visible: Callable[[], None]
    ) -> None:
        self.refusal: Exception | None = None
        self._number = number
        self._wire = wire
        self._progress = progress
        self._before_visible = before_visible
        self._may_stop = True

    def tell(self, nbytes: int) -> None:
        """Tell of bytes that the store has taken."""
        self._may_stop = True
        self._ask(partial(self._progress, nbytes))

    def tick(self) -> None:
        """Ask whether to go on, when nothing was heard for a while; not once the file may be visible."""
        if self._may_stop:
            self._ask(partial(self._progress, 0))

    def decide(self) -> None:
        """Let the file become visible, or not."""
        self._may_stop = False
        if self._ask(self._before_visible):
            self._wire.send({"go": self._number})

    def _ask(self, question: Callable[[], None]) -> bool:
        if self.refusal is None:
            try:
                question()
            except Exception as error:  # noqa: BLE001 - the caller's own, raised again when the program has stopped
                self.refusal = error
                self._wire.send({"stop": self._number})
        return self.refusal is None


def _started(python: str) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    ours, theirs = socket.socketpair()
    log = -1
    try:
        log = os.memfd_create("asynchooks-writer-log", os.MFD_CLOEXEC)
        fcntl.fcntl(log, fcntl.F_SETFL, os.O_APPEND)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if isinstance(path, str)),
            "OPENBLAS_NUM_THREADS": "1",
        }
        process = subprocess.Popen(  # noqa: S603 - this Python and our own program
            [python, "-P", "-m", _PROGRAM],
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        if log >= 0:
            os.close(log)
        raise
    finally:
        theirs.close()
    return process, ours, log


def _end(process: subprocess.Popen[bytes], end: socket.socket, log: int) -> None:
    """Close the socket, at which the program ends; kill it when it does not."""
    end.close()
    os.close(log)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # in a system call that does not end, such as on a lost NFS
            process.wait(_END_S)


def _error(kind: str, text: str) -> AsyncHooksError:
    found = getattr(errors, kind, None)
    return found(text) if found in (*_kinds(CheckpointError), *_kinds(ConfigError)) else StorageError(text)


def _kinds(kind: type[AsyncHooksError]) -> list[type[AsyncHooksError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL, as a machine without memory does"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _forget_all() -> None:
    for writer in list(_writers):
        writer.forget()


os.register_at_fork(after_in_child=_forget_all)
