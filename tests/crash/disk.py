"""Real disks for a test: small ones, and ones whose power can be cut. Needs the right to mount; skips without."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHUTDOWN_OF_EXT4 = 0x8004587D
WITHOUT_FLUSHING_THE_LOG = 2


@contextmanager
def memory_disk(folder: Path, nbytes: int) -> Iterator[Path]:
    """A file system in memory with so much room."""
    folder.mkdir()
    _mount_or_skip("-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class BlockDisk:
    """An ext4 file system in a file, that survives what is done to it."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def cut_power(self) -> None:
        """Lose all that is not on the disk yet. Every call fails from here on, until `come_back`."""
        cut_power(self.folder)

    def come_back(self) -> None:
        """Mount it again, as after a restart."""
        subprocess.run(["umount", str(self.folder)], check=True)
        _mount_or_skip("-o", "loop", str(self._image), str(self.folder))


@contextmanager
def block_disk(folder: Path, image: Path, nbytes: int = 96 * 2**20) -> Iterator[BlockDisk]:
    """An ext4 file system on a loop device."""
    mkfs = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("mkfs.ext4 is not installed")
    with image.open("wb") as file:
        file.truncate(nbytes)
    subprocess.run([mkfs, "-q", "-F", str(image)], check=True)
    folder.mkdir()
    _mount_or_skip("-o", "loop", str(image), str(folder))
    try:
        yield BlockDisk(folder, image)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def cut_power(folder: str | Path) -> None:
    """See `BlockDisk.cut_power`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN_OF_EXT4, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
    finally:
        os.close(descriptor)


def fill(folder: str | Path, leave_bytes: int = 0) -> None:
    """Fill a disk up to some bytes."""
    free_bytes = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    Path(folder, "ballast").write_bytes(bytes(free_bytes - leave_bytes))


def make_room(folder: str | Path) -> None:
    """Undo `fill`."""
    Path(folder, "ballast").unlink()


def forbid_writing(folder: str | Path) -> None:
    """Mount it read-only, as a kernel does that found an error on a disk."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def allow_writing(folder: str | Path) -> None:
    """Undo `forbid_writing`."""
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def _mount_or_skip(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True)
    if done.returncode:
        pytest.skip(f"no permission to mount: {done.stderr.decode().strip()}")
