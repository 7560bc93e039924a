"""A folder on a local disk or NFS: temporary name beside the file, fsync, `os.replace`, fsync of the folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._manifest import check_name, temporary_name
from asynchooks.checkpoint._storage._errors import Guard
from asynchooks.checkpoint._storage._local_owner import LocalOwnerFile
from asynchooks.checkpoint._storage._local_write import write_content
from asynchooks.checkpoint._storage._store import Entry, Progress, nothing, unlimited
from asynchooks.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from asynchooks.checkpoint._content import Content

__all__ = ["LocalStore"]

_IOV_MAX = 1024
_PARALLEL_READS = 4
_MAKING_ATTEMPTS = 3
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_STAYS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}


class LocalStore:
    """A folder; it is made, with its parents, when the first file is written.

    A file that is being written holds a lock, which its process cannot outlive: `is_being_written` asks for
    it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, deadline_s: float = 120.0) -> None:
        self._folder = os.path.abspath(os.fspath(folder))  # noqa: PTH100 - may be NFS: resolve() would follow links
        self._guard = Guard(self._folder, attempts=5, deadline_s=deadline_s)
        self._is_made = False

    @property
    def url(self) -> str:
        """The folder's absolute path."""
        return self._folder

    @property
    def parallel_reads(self) -> int:
        """A few: a disk wants some requests waiting, and the copy from the page cache takes a core each."""
        return _PARALLEL_READS

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = unlimited,
        before_visible: Callable[[], None] = nothing,
    ) -> None:
        """Write, fsync, replace, fsync the folder."""
        self._guard.call("write", name, lambda: self._put(name, content, progress, before_visible))

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the file's bytes."""
        file = self._guard.call("read", name, lambda: open(self._path(name), "rb", buffering=0))  # noqa: SIM115, PTH123 - closed below, also by a generator's close
        with file:
            # Python allocates what is asked for and cuts it: 16 MB for a manifest, and a heap that grows with each
            piece_bytes = min(chunk_bytes, os.fstat(file.fileno()).st_size + 1)
            while True:
                piece = self._guard.call("read", name, lambda: file.read(piece_bytes))
                if not piece:
                    return
                yield memoryview(piece)

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Read at the offset, scattered by the kernel and not by Python."""
        return self._guard.call("read", name, lambda: self._read_into(name, offset, buffers))

    def entries(self) -> Mapping[str, Entry]:
        """The regular files of the folder."""
        return self._guard.call("list", "", self._entries)

    def delete(self, name: str) -> None:
        """Unlink."""
        self._guard.call("delete", name, lambda: self._delete(name))

    def is_being_written(self, name: str) -> bool:
        """Whether a process holds the lock of a temporary file, or that cannot be found out."""
        with self._guard.translated("inspect", name):
            try:
                descriptor = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            finally:
                os.close(descriptor)
            return False

    def folder(self, name: str) -> LocalStore:
        """The folder inside."""
        return LocalStore(self._path(check_name(name)), deadline_s=self._guard.deadline_s)

    def folders(self) -> Collection[str]:
        """The folders inside, empty ones and links to folders among them."""
        return self._guard.call("list", "", self._folders)

    def discard(self) -> None:
        """Remove the folder if it is empty."""
        self._guard.call("remove", "", self._discard)

    def owner_file(self, name: str) -> LocalOwnerFile:
        """The folder's owner file, held by a lock."""
        return LocalOwnerFile(self._folder, name, self._guard)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)  # noqa: PTH118

    def _put(
        self, name: str, content: Content, progress: Progress, before_visible: Callable[[], None]
    ) -> None:
        temporary = self._path(temporary_name(uuid.uuid4().hex))
        descriptor = self._created(temporary)
        try:
            with suppress(OSError):  # a file system without locks: `is_being_written` then always says yes
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_content(descriptor, content, progress)
            os.fsync(descriptor)
            before_visible()
            os.replace(temporary, self._path(name))  # noqa: PTH105
        except IsADirectoryError as error:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise StorageError(
                f"could not write {self._path(name)}: a folder of that name is there. Save under another name, or "
                "move the folder away."
            ) from error
        except BaseException:
            with suppress(OSError):  # the first failure is the one to report
                os.unlink(temporary)  # noqa: PTH108
            raise
        finally:
            os.close(descriptor)
        self._sync_folder()

    def _created(self, path: str) -> int:
        """A new file, open for writing; the folder may be discarded by another process before it stands there."""
        for _ in range(_MAKING_ATTEMPTS - 1):
            self._make()
            with suppress(FileNotFoundError):
                return os.open(path, _NEW, 0o666)
        self._make()
        return os.open(path, _NEW, 0o666)

    def _make(self) -> None:
        """Make the folder and its parents, each durable in the one above; once, also when somebody else made it."""
        missing = [] if self._is_made else [self._folder]
        above = self._folder
        while not os.path.isdir(above):  # noqa: PTH112
            missing += [above] if above not in missing else []
            above = os.path.dirname(above)  # noqa: PTH120
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)  # noqa: PTH102
            with suppress(
                PermissionError
            ):  # one may enter it and not list it; then nobody can make it durable
                _sync(os.path.dirname(folder))  # noqa: PTH120
        self._is_made = True

    def _folders(self) -> list[str]:
        found: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self._folder) as listing:
            found = [item.name for item in listing if item.is_dir()]
        return found

    def _discard(self) -> None:
        self._is_made = False
        try:
            os.rmdir(self._folder)  # noqa: PTH106
        except OSError as error:
            if error.errno not in _STAYS:
                raise
        with suppress(FileNotFoundError, PermissionError):
            _sync(os.path.dirname(self._folder))  # noqa: PTH120

    def _read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read(descriptor, offset, buffers)
        finally:
            os.close(descriptor)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path(name))  # noqa: PTH108
        with suppress(FileNotFoundError):  # no such folder
            self._sync_folder()  # also when nothing is there: an attempt before may have failed at this very line

    def _entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        try:
            with os.scandir(self._folder) as listing:
                for item in listing:
                    with suppress(FileNotFoundError):  # removed meanwhile
                        status = item.stat()
                        if stat.S_ISREG(status.st_mode):
                            found[item.name] = Entry(status.st_size, status.st_mtime)
        except FileNotFoundError:
            return {}
        return found

    def _sync_folder(self) -> None:
        _sync(self._folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, buffers: Sequence[memoryview]) -> int:
    """Fill all buffers; a read may end short before the end of the file, such as after 2 GiB."""
    waiting = [buffer for buffer in buffers if buffer.nbytes]
    waiting.reverse()
    filled = 0
    while waiting:
        batch = waiting[: -_IOV_MAX - 1 : -1]
        nread = os.preadv(descriptor, batch, offset + filled)
        if not nread:
            break
        filled += nread
        while waiting and nread >= waiting[-1].nbytes:
            nread -= waiting.pop().nbytes
        if nread:
            waiting[-1] = waiting[-1][nread:]
    return filled
