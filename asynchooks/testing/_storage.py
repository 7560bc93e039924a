"""Stores that fail or crawl on purpose, over a real one.

Decides when a call goes wrong; everything else is the inner store's. Pass one to `Checkpointer` in place of a
URL.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

from asynchooks.checkpoint import Content, Entry, NestingStore, OwnerFile, Progress, Store, owner_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = ["Call", "Fault", "FaultyStore", "SlowStore"]

Operation: TypeAlias = Literal["put", "read", "read_into", "entries", "delete", "own", "folders", "discard"]

_CHUNK_BYTES = 16 * 2**20


def _unlimited(nbytes: int) -> None:
    """Let the transfer go on."""


def _nothing() -> None:
    """Let the file appear."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a store received; inside a folder, `name` begins with the folder's and a slash."""

    operation: Operation
    name: str


@dataclass(slots=True)
class Fault:
    """Makes matching calls raise.

    Attributes:
        error: makes the exception.
        operation: which calls; None for all.
        name: shell pattern of the file's name, which in a folder begins with the folder's and a slash.
        after_bytes: let a put get so far first; the file is then partly written when it fails.
        skip: let so many matching calls through first.
        times: then fail so many; None for ever.
    """

    error: Callable[[], Exception]
    operation: Operation | None = None
    name: str = "*"
    after_bytes: int = 0
    skip: int = 0
    times: int | None = None

    def is_hit(self, call: Call) -> bool:
        """Count the call and say whether it fails."""
        if self.operation not in (None, call.operation) or not fnmatchcase(call.name, self.name):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if not self.times:
                return False
            self.times -= 1
        return True


@dataclass(slots=True)
class FaultyStore:
    """A store whose calls fail as told, and that remembers every call in `calls`; folders inside share both."""

    inner: Store
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _inside: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = _unlimited,
        before_visible: Callable[[], None] = _nothing,
    ) -> None:
        """Write, or fail on the way."""
        fault = self._hit(Call("put", name))
        if fault is None:
            self.inner.put(name, content, progress=progress, before_visible=before_visible)
            return
        taken = 0

        def fail_on_the_way(nbytes: int) -> None:
            nonlocal taken
            taken += nbytes
            progress(nbytes)
            if taken >= fault.after_bytes:
                raise fault.error()

        if not fault.after_bytes:
            raise fault.error()
        self.inner.put(name, content, progress=fail_on_the_way, before_visible=before_visible)

    def read(self, name: str, *, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[memoryview]:
        """Read, or fail at the first piece."""
        self._raise_if_hit(Call("read", name))
        yield from self.inner.read(name, chunk_bytes=chunk_bytes)

    @property
    def parallel_reads(self) -> int:
        """The inner store's."""
        return self.inner.parallel_reads

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Read a range, or fail."""
        self._raise_if_hit(Call("read_into", name))
        return self.inner.read_into(name, offset, buffers)

    def entries(self) -> Mapping[str, Entry]:
        """List, or fail."""
        self._raise_if_hit(Call("entries", ""))
        return self.inner.entries()

    def delete(self, name: str) -> None:
        """Delete, or fail."""
        self._raise_if_hit(Call("delete", name))
        self.inner.delete(name)

    def is_being_written(self, name: str) -> bool:
        """The inner store's answer."""
        return self.inner.is_being_written(name)

    def owner_file(self, name: str) -> OwnerFile:
        """The inner store's; to hold, read or write it is an "own"."""
        return _FaultyOwnerFile(owner_file(self.inner, name), lambda: self._raise_if_hit(Call("own", name)))

    def folder(self, name: str) -> FaultyStore:
        """The inner store's, with the same faults and calls."""
        inner = _nesting(self.inner).folder(name)
        return replace(self, inner=inner, _inside=f"{self._inside}{name}/")

    def folders(self) -> Collection[str]:
        """List, or fail."""
        self._raise_if_hit(Call("folders", ""))
        return _nesting(self.inner).folders()

    def discard(self) -> None:
        """Remove, or fail."""
        self._raise_if_hit(Call("discard", ""))
        _nesting(self.inner).discard()

    def _raise_if_hit(self, call: Call) -> None:
        fault = self._hit(call)
        if fault is not None:
            raise fault.error()

    def _hit(self, call: Call) -> Fault | None:
        call = Call(call.operation, self._inside + call.name)
        with self._lock:
            self.calls.append(call)
            return next((fault for fault in self.faults if fault.is_hit(call)), None)


@dataclass(frozen=True, slots=True)
class _FaultyOwnerFile:
    inner: OwnerFile
    fail: Callable[[], None]

    def hold(self) -> bool:
        self.fail()
        return self.inner.hold()

    def let_go(self) -> None:
        self.inner.let_go()

    def read(self) -> bytes | None:
        self.fail()
        return self.inner.read()

    def write(self, text: bytes) -> bool:
        self.fail()
        return self.inner.write(text)


@dataclass(frozen=True, slots=True)
class SlowStore:
    """A store at a rate and a latency, both paid on the calling worker thread, which sleeps without the GIL.

    Attributes:
        inner: the store that does the work.
        bytes_per_s: of puts and reads, each by itself.
        latency_s: of every call.
    """

    inner: Store
    bytes_per_s: float
    latency_s: float = 0.0

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = _unlimited,
        before_visible: Callable[[], None] = _nothing,
    ) -> None:
        """Write slowly."""
        time.sleep(self.latency_s)

        def pay(nbytes: int) -> None:
            time.sleep(nbytes / self.bytes_per_s)
            progress(nbytes)

        self.inner.put(name, content, progress=pay, before_visible=before_visible)

    def read(self, name: str, *, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[memoryview]:
        """Read slowly."""
        time.sleep(self.latency_s)
        for piece in self.inner.read(name, chunk_bytes=chunk_bytes):
            time.sleep(piece.nbytes / self.bytes_per_s)
            yield piece

    @property
    def parallel_reads(self) -> int:
        """The inner store's."""
        return self.inner.parallel_reads

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Read a range slowly."""
        time.sleep(self.latency_s)
        nread = self.inner.read_into(name, offset, buffers)
        time.sleep(nread / self.bytes_per_s)
        return nread

    def entries(self) -> Mapping[str, Entry]:
        """List after the latency."""
        time.sleep(self.latency_s)
        return self.inner.entries()

    def delete(self, name: str) -> None:
        """Delete after the latency."""
        time.sleep(self.latency_s)
        self.inner.delete(name)

    def is_being_written(self, name: str) -> bool:
        """The inner store's answer."""
        return self.inner.is_being_written(name)

    def owner_file(self, name: str) -> OwnerFile:
        """The inner store's, at full speed."""
        return owner_file(self.inner, name)

    def folder(self, name: str) -> SlowStore:
        """The inner store's, as slow."""
        return replace(self, inner=_nesting(self.inner).folder(name))

    def folders(self) -> Collection[str]:
        """List after the latency."""
        time.sleep(self.latency_s)
        return _nesting(self.inner).folders()

    def discard(self) -> None:
        """Remove after the latency."""
        time.sleep(self.latency_s)
        _nesting(self.inner).discard()


def _nesting(store: Store) -> NestingStore:
    if isinstance(store, NestingStore):
        return store
    raise TypeError(f"{type(store).__name__} has no folders inside: it is no NestingStore")
