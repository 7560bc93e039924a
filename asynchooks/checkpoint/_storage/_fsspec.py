"""Any folder that fsspec reaches and no better way is known for: temporary name, then the store's own rename.

Where a rename is a copy (memory, or an object store without obstore), a file can be seen while it is copied;
readers then trust the manifest alone, which is written last.
"""

from __future__ import annotations

import posixpath
import uuid
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._manifest import check_name, temporary_name
from asynchooks.checkpoint._storage._errors import Guard, redact_url
from asynchooks.checkpoint._storage._store import Entry, Progress, nothing, scatter, unlimited

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from fsspec import AbstractFileSystem

    from asynchooks.checkpoint._content import Content

__all__ = ["FsspecStore"]

_PARALLEL_READS = 4
_WRITE_BYTES = 4 * 2**20  # a put can be stopped between two writes, and a slow link takes seconds for one
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"}


class FsspecStore:
    """A folder of an fsspec file system."""

    def __init__(
        self,
        filesystem: AbstractFileSystem,
        folder: str,
        *,
        url: str,
        secrets: tuple[str, ...] = (),
        deadline_s: float = 120.0,
    ) -> None:
        self._filesystem: Any = filesystem
        self._folder = folder.rstrip("/")
        self._url = redact_url(url).rstrip("/")
        self._guard = Guard(self._url, secrets=secrets, attempts=5, deadline_s=deadline_s)
        protocol = filesystem.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._appears_whole = bool(protocols & _OBJECT_STORES)

    @property
    def url(self) -> str:
        """The folder's URL without credentials."""
        return self._url

    @property
    def parallel_reads(self) -> int:
        """A few where the file system has a loop of its own; one where nothing says that threads may share it."""
        return _PARALLEL_READS if self._filesystem.async_impl else 1

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = unlimited,
        before_visible: Callable[[], None] = nothing,
    ) -> None:
        """Write under a temporary name and rename; directly, where an object appears whole by itself."""
        self._guard.call("write", name, lambda: self._put(name, content, progress, before_visible))

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the file's bytes."""
        path = self._path(name)

        def opened() -> Any:
            self._filesystem.invalidate_cache(self._folder)  # another process may have written since
            return self._filesystem.open(path, "rb", block_size=chunk_bytes)

        file = self._guard.call("read", name, opened)
        position = 0

        def read_on() -> Any:
            file.seek(position)  # an attempt before may have failed anywhere
            return file.read(chunk_bytes)

        with closing(file):
            while piece := self._guard.call("read", name, read_on):
                position += len(piece)
                yield memoryview(piece)

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Read one range and copy it into the buffers."""
        return self._guard.call("read", name, lambda: self._read_into(name, offset, buffers))

    def entries(self) -> Mapping[str, Entry]:
        """The files of the folder."""
        return self._guard.call("list", "", self._entries)

    def delete(self, name: str) -> None:
        """Remove the file."""
        self._guard.call("delete", name, lambda: self._delete(name))

    def is_being_written(self, name: str) -> bool:
        """False: nothing tells whether another process still writes."""
        del name
        return False

    def folder(self, name: str) -> FsspecStore:
        """The folder inside, on the same file system."""
        return FsspecStore(
            self._filesystem,
            self._path(check_name(name)),
            url=f"{self._url}/{name}",
            secrets=self._guard.secrets,
            deadline_s=self._guard.deadline_s,
        )

    def folders(self) -> Collection[str]:
        """What the file system calls a directory."""
        return self._guard.call("list", "", self._folders)

    def discard(self) -> None:
        """Remove the directory if it is empty, where the file system has real ones."""
        self._guard.call("remove", "", self._discard_folder)

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, name)

    def _put(
        self, name: str, content: Content, progress: Progress, before_visible: Callable[[], None]
    ) -> None:
        self._filesystem.makedirs(self._folder, exist_ok=True)
        target = self._path(name if self._appears_whole else temporary_name(uuid.uuid4().hex))
        file = self._filesystem.open(target, "wb")
        if hasattr(file, "set_pipelined"):
            file.set_pipelined(True)  # paramiko: 32 KiB at a time, each waited for, otherwise
        try:
            written = 0
            for piece in content.chunks(_WRITE_BYTES):
                written += piece.nbytes
                _write(file, piece, is_last=written == content.nbytes)
                progress(piece.nbytes)
            if self._appears_whole:
                before_visible()
            file.close()
            if not self._appears_whole:
                before_visible()
                self._filesystem.mv(target, self._path(name))
        except BaseException:
            self._discard(file, target)
            raise

    def _read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        nbytes = sum(buffer.nbytes for buffer in buffers)
        path = self._path(name)
        try:
            data = self._filesystem.cat_file(path, start=offset, end=offset + nbytes) if nbytes else b""
        except FileNotFoundError:
            raise
        except Exception:  # file systems differ in what they raise for a range behind the end
            if offset < int(self._filesystem.info(path)["size"]):
                raise
            return 0
        if len(data) > nbytes:
            raise OSError(f"asked for {nbytes} bytes from {offset} on, got {len(data)}")
        return scatter(memoryview(data), buffers)

    def _discard(self, file: Any, target: str) -> None:
        """Drop a file that was not written whole; the first error is on its way, others say nothing new."""
        if self._appears_whole:
            with suppress(Exception):
                file.discard()
            file.closed = True  # else the collector's close() would complete the upload
        else:
            with suppress(Exception):
                file.close()
            with suppress(Exception):
                self._filesystem.rm_file(target)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(name))

    def _entries(self) -> dict[str, Entry]:
        return {
            posixpath.basename(item["name"]): Entry(int(item["size"] or 0), _modified_s(item))
            for item in self._listing()
            if item["type"] == "file"
        }

    def _folders(self) -> list[str]:
        names = [item["name"].rstrip("/") for item in self._listing() if item["type"] == "directory"]
        return [posixpath.basename(name) for name in names]

    def _listing(self) -> list[Any]:
        self._filesystem.invalidate_cache(self._folder)
        try:
            return list(self._filesystem.ls(self._folder, detail=True))
        except FileNotFoundError:
            return []

    def _discard_folder(self) -> None:
        if self._appears_whole or self._listing():  # some file systems remove what is inside as well
            return
        with suppress(FileNotFoundError):
            self._filesystem.rmdir(self._folder)


def _write(file: Any, piece: memoryview, *, is_last: bool) -> None:
    """Write a piece; over SFTP without waiting for the server's answer to every 32 KB of it.

    When a pipelined file is closed, paramiko drops the answers that are still on their way, and with them a full
    disk. So the very last byte is written the slow way, which waits for all answers and raises what they say.
    """
    if is_last and hasattr(file, "set_pipelined"):
        file.write(piece[:-1])
        file.set_pipelined(False)
        piece = piece[-1:]
    file.write(piece)


def _modified_s(item: Mapping[str, Any]) -> float | None:
    for key in ("mtime", "modified", "LastModified", "last_modified", "created"):
        value = item.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None
