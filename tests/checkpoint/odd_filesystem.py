"""A file system that goes wrong at one of its operations, in the writer process alone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class OddFileSystem(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A local folder. Another process than `owner` misbehaves at `at`, as often as the file `once` does not exist.

    Operations: init, open, write, close, mv. What happens: kill, freeze, hang, deny.
    """

    protocol = "odd"
    cachable = False  # codespell:ignore cachable

    def __init__(
        self, owner: int = 0, at: str = "", what: str = "", once: str = "", password: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self.owner = owner
        self.at = at
        self.what = what
        self.once = Path(once) if once else None
        self.password = password
        self.reach("init")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("odd://").rstrip("/")

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        if mode != "wb":
            return super()._open(path, mode, block_size, **options)
        self.reach("open")
        return _File(self, path)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        self.reach("mv")
        super().mv(path1, path2, **options)

    def reach(self, operation: str) -> None:
        """Go wrong here, if that was asked for."""
        if operation != self.at or os.getpid() == self.owner:
            return
        if self.once is not None:
            if self.once.exists():
                return
            self.once.touch()
        if self.what == "deny":
            raise PermissionError(13, "this is not yours", "/there")
        sys.stderr.write(f"about to {self.what} at {operation} with {self.password}\n")
        sys.stderr.flush()
        while True:
            if self.what == "hang":
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL if self.what == "kill" else signal.SIGSTOP)


class _File:
    def __init__(self, filesystem: OddFileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._file = Path(path).open("wb")  # noqa: SIM115 - closed by close

    def write(self, piece: memoryview) -> int:
        self._filesystem.reach("write")
        return self._file.write(piece)

    def close(self) -> None:
        self._filesystem.reach("close")
        self._file.close()


class PipelinedFileSystem(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """Answers writes as a full SFTP server does through paramiko: late, and never to who only closes."""

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        return _PipelinedFile(path) if mode == "wb" else super()._open(path, mode, block_size, **options)


class _PipelinedFile:
    def __init__(self, path: str) -> None:
        Path(path).touch()
        self._is_pipelined = False

    def set_pipelined(self, pipelined: bool) -> None:
        self._is_pipelined = pipelined

    def write(self, piece: memoryview) -> None:
        if not self._is_pipelined:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


class LonelyFileSystem(OddFileSystem):
    """Its files are in the folder of the process that opened it: no other process sees them."""

    protocol = "lonely"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return f"{str(path).removeprefix('lonely://').rstrip('/')}"

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        super().makedirs(self._mine(path), exist_ok)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        return super()._open(self._mine(path), mode, block_size, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        super().mv(self._mine(path1), self._mine(path2), **options)

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        return super().ls(self._mine(path), detail, **options)

    def _mine(self, path: str) -> str:
        folder, _, name = path.rpartition("/") if path.endswith((".pth", ".tmp")) else (path, "", "")
        return f"{folder}/{os.getpid()}/{name}".rstrip("/")
