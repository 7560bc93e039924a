"""What a store must do. One folder, flat names, files that appear whole."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.errors import CorruptCheckpointError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from asynchooks.checkpoint._content import Content

__all__ = [
    "ALONE",
    "Entry",
    "NestingStore",
    "Share",
    "SharedStore",
    "Progress",
    "Store",
    "Upload",
    "nesting",
    "shared",
    "nothing",
    "read_all",
    "scatter",
    "unlimited",
]

_SMALL_BYTES = 2**20

Progress: TypeAlias = "Callable[[int], None]"
"""Told how many more bytes the store has taken. What it raises stops the transfer, which cleans up and
re-raises it."""


def unlimited(nbytes: int) -> None:
    """Let the transfer go on."""


def nothing() -> None:
    """Let it go on: hear that a file is about to appear, or of a commit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A visible file: its length, and when it was written (seconds since 1970; None: the store has no times)."""

    nbytes: int
    modified_s: float | None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun and is not complete: no file yet.

    Attributes:
        name: of the file that it would become.
        started_s: when it was begun, seconds since 1970.
        upload_id: what the store calls it.
    """

    name: str
    started_s: float
    upload_id: str


class Store(Protocol):
    """One folder of a store. Methods block, may be called from any thread, and raise `CheckpointError` only.

    Implement it to keep checkpoints somewhere that fsspec does not reach; `asynchooks.testing.StoreSuite`
    checks it.
    """

    @property
    def url(self) -> str:
        """The folder, without credentials: an absolute path on a local disk."""

    @property
    def parallel_reads(self) -> int:
        """How many `read_into` at once are worth while; 1 where `read` serves better. Right after the first one."""

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = unlimited,
        before_visible: Callable[[], None] = nothing,
    ) -> None:
        """Write a whole file, replacing one of that name. It is visible whole or, on any failure, not at all.

        When it returns, the file is durable. `before_visible` is called when all bytes are at the store and no
        reader can see them yet (again, when the write is tried again); it may call the store itself. What it or
        `progress` raises stops the write promptly; nothing is left behind.
        """

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield a file's bytes in order, in pieces of about `chunk_bytes`. Closing it ends the transfer.

        Raises:
            CheckpointNotFoundError: no such file; raised at the first piece.
        """

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Fill writable byte buffers, one after the other, with a file's bytes from `offset` on.

        Returns:
            How many bytes were read: less than asked for at the end of the file alone, 0 behind it.

        Raises:
            CheckpointNotFoundError: no such file.
        """

    def entries(self) -> Mapping[str, Entry]:
        """All files directly in the folder; empty when the folder does not exist yet.

        Raises:
            CheckpointNotFoundError: what must exist beforehand, such as a bucket, does not.
        """

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    def is_being_written(self, name: str) -> bool:
        """Whether a process still writes a temporary file. False where nothing can tell: then age decides."""


def scatter(data: memoryview, buffers: Iterable[memoryview]) -> int:
    """Copy bytes into buffers, one after the other, without the GIL; returns how many found room."""
    done = 0
    for buffer in buffers:
        piece = data[done : done + buffer.nbytes]
        np.copyto(np.frombuffer(buffer, np.uint8)[: piece.nbytes], np.frombuffer(piece, np.uint8))
        done += piece.nbytes
    return done


@runtime_checkable
class UploadingStore(Protocol):
    """A store that can be asked for uploads that killed processes left; they cost money and are no files."""

    def unfinished_uploads(self, *, needed: bool = True) -> Sequence[Upload]:
        """Those into this folder, in flight or not.

        Raises: ConfigError: a package is missing that asks the store, and `needed`.
        """

    def abort_upload(self, upload: Upload) -> None:
        """Drop what was uploaded; nothing happens when it is gone."""


@runtime_checkable
class NestingStore(Store, Protocol):
    """A store with folders inside, each a `NestingStore` of its own: what sharded checkpoints need."""

    def folder(self, name: str) -> NestingStore:
        """The folder of that name inside this one. Asks nothing of the store; the first `put` makes the folder.

        It has this one's deadline, options and writer.

        Raises:
            UnsafePathError: the name is no safe path component.
        """

    def folders(self) -> Collection[str]:
        """Names of all folders directly inside that hold something; empty ones too, where folders are real."""

    def discard(self) -> None:
        """Remove this folder itself where folders are real; nothing happens when it holds something, or is not there.

        Where the store cannot look and remove at once, an instant remains in which a file may be lost: nobody may
        write to the folder meanwhile.
        """


@dataclass(frozen=True, slots=True)
class Share:
    """Which of several processes this is that write into a folder at once.

    Attributes:
        writer: its number.
        writers: how many there are.
    """

    writer: int = 0
    writers: int = 1


ALONE = Share()


@runtime_checkable
class SharedStore(Protocol):
    """A store that takes so many requests per second, and can have several processes take their turns."""

    def shared(self, share: Share) -> Store:
        """The same folder, for one of several processes that write large files into it at the same time."""


def shared(store: Store, share: Share) -> Store:
    """The store for one of several processes that write into it at once; the same one where that changes nothing."""
    return store.shared(share) if share.writers > 1 and isinstance(store, SharedStore) else store


def nesting(store: Store) -> NestingStore:
    """The store, as one with folders inside.

    Raises:
        StorageError: it has none.
    """
    if isinstance(store, NestingStore):
        return store
    raise StorageError(
        f"{store.url}: a sharded checkpoint needs a store with folders inside, and {type(store).__name__} has none. "
        "Give it the methods of asynchooks.checkpoint.NestingStore, or save single files."
    )


def read_all(store: Store, name: str, *, limit_bytes: int = _SMALL_BYTES) -> bytes:
    """A small file's bytes.

    Raises:
        CorruptCheckpointError: it is longer than any such file is; no more than that of it is read.
    """
    data = bytearray()
    with closing(store.read(name, chunk_bytes=_SMALL_BYTES)) as pieces:  # type: ignore[type-var] # a generator
        for piece in pieces:
            data += piece
            if len(data) > limit_bytes:
                data.clear()  # whoever keeps the error keeps this frame
                raise CorruptCheckpointError(
                    f"{store.url.rstrip('/')}/{name} is longer than {limit_bytes} bytes: none of this package's is."
                )
    return bytes(data)
