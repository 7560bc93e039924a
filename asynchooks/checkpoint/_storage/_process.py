"""A store whose large files are written by a process of its own.

For stores whose writing holds the GIL, such as file systems written in Python: a thread would slow every training
step while it writes. Decides what goes to the writer process (files from a megabyte on), and what happens when it
fails: a lost writer is replaced and the put tried once more; one that does not start costs speed, not a checkpoint,
since the calling thread writes then. All else is the inner store's. A folder and the folders inside share one
writer process.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.config
from fsspec.implementations.memory import MemoryFileSystem

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._storage._errors import Guard
from asynchooks.checkpoint._storage._owner_file import OwnerFile, owner_file
from asynchooks.checkpoint._storage._store import (
    ALONE,
    Entry,
    Progress,
    Share,
    nesting,
    nothing,
    shared,
    unlimited,
)
from asynchooks.checkpoint._storage._writer import Writer, WriterLostError, WriterStartError
from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._storage._store import Store

__all__ = ["ProcessStore", "describe"]

logger = logging.getLogger(__name__)

_LARGE_BYTES = 2**20
_WAIT_S = 1.0


def describe(url: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What another process needs to open the same store; None when its files or options live in this one alone."""
    protocols = [part.partition("://")[0] for part in url.split("::")]
    classes = {}
    for protocol in protocols:
        with suppress(
            ImportError, ValueError
        ):  # a path; or what is reached otherwise, such as S3 without s3fs
            classes[protocol] = fsspec.get_filesystem_class(protocol)
    names = {protocol: f"{cls.__module__}:{cls.__qualname__}" for protocol, cls in classes.items()}
    if any("<locals>" in name or name.startswith("__main__:") for name in names.values()):
        return None
    if any(issubclass(cls, MemoryFileSystem) for cls in classes.values()):
        return None
    spoken = {*protocols}
    for cls in classes.values():
        spoken.update([cls.protocol] if isinstance(cls.protocol, str) else cls.protocol)
    description = {
        "url": url,
        "options": dict(options),
        "config": {key: value for key, value in fsspec.config.conf.items() if key in spoken},
        "implementations": names,
    }
    try:
        is_same_there = json.loads(json.dumps(description)) == description
    except (TypeError, ValueError):
        return None
    return description if is_same_there else None


class ProcessStore:
    """A folder of another store, with a writer process that starts with the first large put.

    Args:
        inner: the store, for all but large puts.
        description: how the writer process opens the same one: see `describe`.
        secrets: texts that must not appear in a message.
        deadline_s: longest time that the writer process may say nothing.
        python: the interpreter that runs it.
    """

    writes_from_shared_memory = True

    def __init__(
        self,
        inner: Store,
        description: Mapping[str, Any],
        *,
        secrets: tuple[str, ...] = (),
        deadline_s: float = 120.0,
        python: str = sys.executable,
    ) -> None:
        self._inner = inner
        self._inside: tuple[str, ...] = ()
        self._share = ALONE
        self._guard = Guard(inner.url, secrets=secrets)
        self._desk = _Desk(
            inner.url,
            {**description, "secrets": list(secrets), "deadline_s": deadline_s},
            self._guard,
            python,
        )

    @property
    def url(self) -> str:
        """The inner store's."""
        return self._inner.url

    @property
    def parallel_reads(self) -> int:
        """The inner store's."""
        return self._inner.parallel_reads

    @property
    def writer_pid(self) -> int | None:
        """The writer process; None while there is none."""
        return self._desk.writer_pid

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = unlimited,
        before_visible: Callable[[], None] = nothing,
    ) -> None:
        """Have a large file written by the writer process, and write a small one here."""
        if content.nbytes < _LARGE_BYTES or self._desk.is_putting_here():  # called by `before_visible`
            self._inner.put(name, content, progress=progress, before_visible=before_visible)
            return
        with self._desk.turn(progress):
            is_written = self._put(name, content, progress, before_visible)
        if not is_written:
            self._inner.put(name, content, progress=progress, before_visible=before_visible)

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """The inner store's."""
        return self._inner.read(name, chunk_bytes=chunk_bytes)

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """The inner store's."""
        return self._inner.read_into(name, offset, buffers)

    def entries(self) -> Mapping[str, Entry]:
        """The inner store's."""
        return self._inner.entries()

    def delete(self, name: str) -> None:
        """The inner store's."""
        self._inner.delete(name)

    def is_being_written(self, name: str) -> bool:
        """The inner store's answer."""
        return self._inner.is_being_written(name)

    def owner_file(self, name: str) -> OwnerFile:
        """The best that the inner store offers."""
        return owner_file(self._inner, name)

    def folder(self, name: str) -> ProcessStore:
        """The inner store's, with the same writer process."""
        inner = nesting(self._inner).folder(name)
        folder = ProcessStore(inner, {}, secrets=self._guard.secrets)
        folder._inside, folder._desk = (*self._inside, name), self._desk
        return folder

    def shared(self, share: Share) -> ProcessStore:
        """The inner store's, with the same writer process."""
        one = ProcessStore(shared(self._inner, share), {}, secrets=self._guard.secrets)
        one._inside, one._desk, one._share = self._inside, self._desk, share
        return one

    def folders(self) -> Collection[str]:
        """The inner store's."""
        return nesting(self._inner).folders()

    def discard(self) -> None:
        """The inner store's."""
        nesting(self._inner).discard()

    def close(self) -> None:
        """End the writer process of this folder and those inside; the next large put starts another.

        Collected, it ends as well.
        """
        self._desk.close()

    def _put(
        self, name: str, content: Content, progress: Progress, before_visible: Callable[[], None]
    ) -> bool:
        """Whether the writer process has written it; False when it cannot. Once more when it ends meanwhile."""
        for attempt in (1, 2):
            with self._guard.translated("write", name, attempts=attempt):
                try:
                    failure = self._desk.ready_writer().put(
                        name, content, progress, before_visible, inside=self._inside, share=self._share
                    )
                except WriterStartError as error:
                    self._desk.warn(str(error))
                    return False
                except WriterLostError as error:
                    if error.is_silent or attempt == 2:
                        raise ConnectionResetError(str(error)) from None
                    logger.warning("%s: %s; trying again", self.url, self._guard.clean(str(error)))
                    continue
                if isinstance(failure, ConfigError):
                    self._desk.warn(str(failure))
                    return False
                if failure is not None:
                    raise failure
                return self._is_there(name, content)
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _is_there(self, name: str, content: Content) -> bool:
        """Whether this process sees what its writer process wrote; asked once."""
        if not self._desk.reaches_the_same:
            entry = self._inner.entries().get(name)
            self._desk.reaches_the_same = entry is not None and entry.nbytes == content.nbytes
            if not self._desk.reaches_the_same:
                self._desk.warn("what it writes does not appear in this process")
        return self._desk.reaches_the_same


class _Desk:
    """Where a folder and those inside wait for their one writer process. Any thread."""

    def __init__(self, url: str, description: Mapping[str, Any], guard: Guard, python: str) -> None:
        self.reaches_the_same = False
        self._url = url
        self._description = description
        self._guard = guard
        self._python = python
        self._owner = os.getpid()
        self._one_at_a_time = threading.Lock()
        self._putting: int | None = None
        self._writer: Writer | None = None
        self._has_warned = False

    @property
    def writer_pid(self) -> int | None:
        writer = self._writer
        return None if writer is None or writer.is_ended else writer.pid

    def is_putting_here(self) -> bool:
        """Whether the calling thread is in the middle of a put."""
        return self._putting == threading.get_ident()

    @contextmanager
    def turn(self, progress: Progress) -> Iterator[None]:
        if self._owner != os.getpid():  # a fork: its writer is the parent's, and nobody here holds the lock
            self._owner, self._one_at_a_time, self._writer = os.getpid(), threading.Lock(), None
        while not self._one_at_a_time.acquire(timeout=_WAIT_S):
            progress(0)
        try:
            self._putting = threading.get_ident()
            yield
        finally:
            self._putting = None
            self._one_at_a_time.release()

    def ready_writer(self) -> Writer:
        if self._writer is None or self._writer.is_ended:
            self._writer = Writer.start(
                self._description, deadline_s=self._description["deadline_s"], python=self._python
            )
        return self._writer

    def close(self) -> None:
        with self._one_at_a_time:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.end()

    def warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s: the writer process cannot be used (%s), so a thread writes, which may slow the training while "
                'it does. writer="thread" says that this is known.',
                self._url,
                self._guard.clean(reason),
            )
