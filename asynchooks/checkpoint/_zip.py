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
    from collections.abc import Iterable

__all__ = ["ALIGNMENT", "lay_out"]

ALIGNMENT = 64
"""Records start at multiples of it, as in torch's files, so that they can be mapped into memory."""

_SATURATED_16 = 0xFFFF
_SATURATED_32 = 0xFFFFFFFF
_UTF8_NAMES = 0x0800
_DOS_1980 = 0x21
_SMALL_BYTES = 2**20


def lay_out(records: Iterable[tuple[str, memoryview]]) -> tuple[list[memoryview], list[int]]:
    """Return the archive's buffers in order, and the offset at which each record's own bytes start.

    Checksums of large records are left zero, as torch leaves them with ``set_crc32_options(False)``:
    ``torch.load`` does not read them, and the manifest holds better ones.
    """
    buffers: list[memoryview] = []
    offsets: list[int] = []
    directory: list[bytes] = []
    position = 0
    for name, data in records:
        path = f"archive/{name}".encode()
        crc = zlib.crc32(data) if data.nbytes < _SMALL_BYTES and not name.startswith("data/") else 0
        header = _local_header(path, data.nbytes, crc, position)
        directory.append(_directory_entry(path, data.nbytes, crc, position))
        buffers.append(memoryview(header))
        position += len(header)
        offsets.append(position)
        if data.nbytes:
            buffers.append(data)
        position += data.nbytes
    buffers.append(memoryview(_end(directory, position)))
    return buffers, offsets


def _local_header(path: bytes, nbytes: int, crc: int, position: int) -> bytes:
    large = struct.pack("<HHQQ", 1, 16, nbytes, nbytes) if nbytes >= _SATURATED_32 else b""
    unpadded = position + 30 + len(path) + len(large) + 4
    padding = -unpadded % ALIGNMENT
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
