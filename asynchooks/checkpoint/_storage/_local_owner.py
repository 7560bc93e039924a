"""The owner file of a local folder: locked as long as the claim.

Decides for `flock`: a process cannot outlive it, and NFS carries it to other hosts. A record lock (`lockf`) would be
lost as soon as anything in this process opens and closes the file, a copy of the folder for example. What is
said against `flock`, that forked data-loader workers inherit it, is undone at the fork. The file is written in
place, since a lock stays with the file that was opened, not with its name; and it is kept open for reading only,
so that nothing hinders who makes the disk read-only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from dataclasses import dataclass

from asynchooks.checkpoint._storage._errors import Guard

__all__ = ["LocalOwnerFile"]

_MOST_BYTES = 64 * 1024


@dataclass(slots=True)
class _Shared:
    """This process's one descriptor of an owner file: a second one would be kept off by the first."""

    path: str
    descriptor: int
    users: int = 0

    def is_current(self) -> bool:
        """Whether it is still the file that has the name."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(self.path))  # noqa: PTH116
        except FileNotFoundError:
            return False

    def lock(self) -> bool:
        """Take the lock, or make sure of it; False when another process has it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                return True  # a file system without locks keeps nobody off
            self._open_for_writing()
            return self.lock()
        return True

    def _open_for_writing(self) -> None:
        """NFS locks only what may be written."""
        writable = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(writable, self.descriptor, inheritable=False)
        os.close(writable)


_shared: dict[str, _Shared] = {}
_lock = threading.RLock()


class LocalOwnerFile:
    """One user of the owner file in a folder, which is made with the first use."""

    def __init__(self, folder: str, name: str, guard: Guard) -> None:
        self._folder = folder
        self._name = name
        self._guard = guard
        self._used: _Shared | None = None

    def hold(self) -> bool:
        """Take the lock, or make sure of it."""
        with _lock:
            return self._guard.call("claim", self._name, lambda: self._open().lock())

    def let_go(self) -> None:
        """Drop the lock when the last user of this process lets go."""
        with _lock:
            used, self._used = self._used, None
            if used is None:
                return
            used.users -= 1
            if used.users == 0:
                if _shared.get(used.path) is used:
                    del _shared[used.path]
                os.close(used.descriptor)

    def read(self) -> bytes | None:
        """Read it; an empty file is none."""
        with _lock:
            return self._guard.call("claim", self._name, self._read)

    def write(self, text: bytes) -> bool:
        """Write it in place; the lock has kept others off since it was read."""
        with _lock:
            self._guard.call("claim", self._name, lambda: self._write(text))
        return True

    def _read(self) -> bytes | None:
        return os.pread(self._open().descriptor, _MOST_BYTES, 0) or None

    def _write(self, text: bytes) -> None:
        descriptor = os.open(self._open().path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)

    def _open(self) -> _Shared:
        if self._used is not None and self._used.is_current():
            return self._used
        self.let_go()
        path = os.path.join(os.path.realpath(self._folder), self._name)  # noqa: PTH118
        shared = _shared.get(path)
        if shared is None or not shared.is_current():
            os.makedirs(self._folder, exist_ok=True)  # noqa: PTH103
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            shared = _shared[path] = _Shared(path, descriptor)
        shared.users += 1
        self._used = shared
        return shared


def _forget() -> None:
    """In a forked child: close what was inherited, or the locks would live as long as it."""
    global _lock  # noqa: PLW0603 - another thread of the parent may hold it
    _lock = threading.RLock()
    for shared in _shared.values():
        os.close(shared.descriptor)
        shared.users = 0  # whoever uses it still closes nothing
    _shared.clear()


os.register_at_fork(after_in_child=_forget)
