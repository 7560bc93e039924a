"""The container of a ``torch.save`` file: a zip archive of stored records, laid out before a byte is written.

Decides where every byte of the archive lies and hands the records' own buffers on. torch's writer would do
the same, but calls ``write`` once per header and keeps its place in C++, where a failing or cancelled store
cannot be told to stop; a layout that is known in advance gives the size, the checksums and parallel parts
before the upload starts.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIGNMENT", "HEADER_ROOM", "Archive"]

ALIGNMENT = 64
"""Records start at multiples of it, as in torch's files, so that they can be mapped into memory."""

HEADER_ROOM = 80
"""Bytes before a record that are enough for the header of any tensor's record."""

_PAGE_BYTES = 4096
_SATURATED_16 = 0xFFFF
_SATURATED_32 = 0xFFFFFFFF
_UTF8_NAMES = 0x0800
_DOS_1980 = 0x21


class Archive:
    """An archive that grows by records. Nothing is written: `buffers` are its bytes in order."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []
        self.nbytes = 0
        self._directory: list[bytes] = []

    def add(self, name: str, data: bytes | memoryview, *, summed: bool = True) -> int:
        """Append a record and return where its bytes start.

        Checksums of tensors (`summed` False) are left zero, as torch leaves them with
        ``set_crc32_options(False)``: ``torch.load`` does not read them, and the manifest holds better ones.
        """
        view = memoryview(data)
        return self._append(name, view, zlib.crc32(view) if summed else 0, view.nbytes, ALIGNMENT)

    def add_at(self, name: str, data: memoryview, residue: int) -> int:
        """Append a tensor's record whose bytes start at this offset of a page of the archive."""
        return self._append(name, data, 0, data.nbytes, _PAGE_BYTES, residue)

    def add_run(self, memory: memoryview, records: Sequence[tuple[str, int, int]]) -> int:
        """Append records that lie in the memory one after the other, with room for the headers between them.

        Each record is its name, its first byte in the memory, and its length. Their headers are written into
        that room; they do not depend on anything else in the archive. The run starts at the same offset of a
        page in the archive as in the memory, so that it can be written from there without a copy.
        """
        name, first, nbytes = records[0]
        end = first + nbytes
        inside: list[tuple[bytes, int, int]] = []
        for following, start, length in records[1:]:
            path = _path(following)
            memory[end:start] = _local_header(path, length, 0, start - end)
            inside.append((path, length, end - first))
            end = start + length
        position = self._append(name, memory[first:end], 0, nbytes, _PAGE_BYTES, first % _PAGE_BYTES)
        for path, length, header_at in inside:
            self._directory.append(_directory_entry(path, length, 0, position + header_at))
        return position

    def finish(self) -> None:
        """Append the directory."""
        self._put(memoryview(_end(self._directory, self.nbytes)))

    def _append(
        self, name: str, view: memoryview, crc: int, nbytes: int, alignment: int, residue: int = 0
    ) -> int:
        path = _path(name)
        least = self.nbytes + _header_bytes(path, nbytes)
        room = least + (residue - least) % alignment - self.nbytes
        self._directory.append(_directory_entry(path, nbytes, crc, self.nbytes))
        self._put(memoryview(_local_header(path, nbytes, crc, room)))
        position = self.nbytes
        self._put(view)
        return position

    def _put(self, view: memoryview) -> None:
        if view.nbytes:
            self.buffers.append(view)
            self.nbytes += view.nbytes


def _path(name: str) -> bytes:
    return f"archive/{name}".encode()


def _header_bytes(path: bytes, nbytes: int) -> int:
    return 30 + len(path) + (20 if nbytes >= _SATURATED_32 else 0) + 4


def _local_header(path: bytes, nbytes: int, crc: int, room: int) -> bytes:
    """The header before a record, padded to the room."""
    large = struct.pack("<HHQQ", 1, 16, nbytes, nbytes) if nbytes >= _SATURATED_32 else b""
    padding = room - _header_bytes(path, nbytes)
    extra = large + b"FB" + struct.pack("<H", padding) + b"Z" * padding
    size = min(nbytes, _SATURATED_32)
    fixed = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 45, _UTF8_NAMES, 0, 0, _DOS_1980, crc, size, size, len(path), len(extra)
    )
    return fixed + path + extra


def _directory_entry(path: bytes, nbytes: int, crc: int, position: int) -> bytes:
    large = [nbytes, nbytes] if nbytes >= _SATURATED_32 else []
    if position >= _SATURATED_32:
        large.append(position)
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    size = min(nbytes, _SATURATED_32)
    fixed = struct.pack(
        "<4s6H3L5H2L",
        b"PK\1\2",
        45,
        45,
        _UTF8_NAMES,
        0,
        0,
        _DOS_1980,
        crc,
        size,
        size,
        len(path),
        len(extra),
        0,
        0,
        0,
        0,
        min(position, _SATURATED_32),
    )
    return fixed + path + extra


def _end(directory: list[bytes], position: int) -> bytes:
    entries = b"".join(directory)
    count, length = len(directory), len(entries)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, position)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, position + length, 1)
    end = struct.pack(
        "<4s4H2LH",
        b"PK\5\6",
        0,
        0,
        min(count, _SATURATED_16),
        min(count, _SATURATED_16),
        min(length, _SATURATED_32),
        min(position, _SATURATED_32),
        0,
    )
    return entries + end64 + locator + end
