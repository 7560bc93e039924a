"""Where the records of a ``torch.save`` file lie: the zip container, read without trusting a byte of it.

Decides from the directory at the file's end, checked against the file's size: stored records only, one folder, no
name twice, none over another. Pure. torch's reader takes more (compressed records, comments, overlaps), and believes
the sizes; whoever writes checkpoints writes none of that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["END_BYTES", "HEADER_BYTES", "Archive", "BadArchiveError", "Directory", "Record", "find_directory"]

END_BYTES = 98
"""So many bytes at the end of a file tell where its directory lies."""
HEADER_BYTES = 30
"""The fixed part of what stands before a record."""

_END, _LOCATOR, _END64 = "<4s4H2LH", "<4sLQL", "<4sQ2H2L4Q"
_ENTRY, _HEADER = "<4s6H3L5H2L", "<4s5H3L2H"
_SATURATED_16, _SATURATED_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _WITH_DESCRIPTOR = 0x0001, 0x0008
_MAX_NAME_BYTES = 512


class BadArchiveError(ValueError):
    """The container is damaged, or one that no checkpoint has; never leaves the package."""


@dataclass(frozen=True, slots=True)
class Record:
    """A named run of bytes. `start` is where it lies, `crc` its CRC-32, 0 where the writer left it out."""

    name: str
    header: int
    start: int
    nbytes: int
    crc: int

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.start + self.nbytes


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the list of records lies."""

    start: int
    nbytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The records by their names without the folder, in the order in which they lie."""

    folder: bytes
    records: dict[str, Record]

    @classmethod
    def parse(cls, directory: bytes, place: Directory) -> Archive:
        """Read the list of records. Where their bytes start is concluded from where the next one's header does.

        Raises:
            BadArchiveError: says what is wrong.
        """
        entries = list(_entries(directory, place))
        entries.sort(key=lambda entry: entry.header)
        folder = entries[0].path.partition(b"/")[0] + b"/"
        records: dict[str, Record] = {}
        ends = [entry.header for entry in entries[1:]] + [place.start]
        for entry, end in zip(entries, ends, strict=True):
            record = entry.record(end, folder)
            if record.name in records:
                raise BadArchiveError(f"two records are named {record.name!r}")
            records[record.name] = record
        return cls(folder, records)

    def placed(self, record: Record, header: bytes) -> Record:
        """The record where its own header (the first `HEADER_BYTES` of it) says that it starts.

        Raises:
            BadArchiveError: the header is none, or disagrees with the directory.
        """
        signature, _, _, method, _, _, _, packed, nbytes, name, extra = struct.unpack(_HEADER, header)
        path = len(self.folder) + len(record.name.encode())
        start = record.header + HEADER_BYTES + name + extra
        sizes = {0, _SATURATED_32, record.nbytes}
        if signature != b"PK\3\4" or method or name != path or not {packed, nbytes} <= sizes:
            raise BadArchiveError(f"the header of {record.name!r} disagrees with the directory")
        if start > record.start:
            raise BadArchiveError(f"{record.name!r} does not fit between its header and the next")
        return Record(record.name, record.header, start, record.nbytes, record.crc)


def find_directory(tail: bytes, nbytes: int) -> Directory:
    """Read the end of a file of `nbytes`: its last `END_BYTES` bytes, or all of a shorter one.

    Raises:
        BadArchiveError: it does not end like an archive, or its directory does not lie in the file.
    """
    end_size, locator_size, end64_size = (struct.calcsize(each) for each in (_END, _LOCATOR, _END64))
    if len(tail) < end_size or tail[-end_size:][:4] != b"PK\5\6":
        raise BadArchiveError("it does not end as an archive does")
    _, disk, other_disk, here, count, length, start, comment = struct.unpack(_END, tail[-end_size:])
    before = nbytes - end_size
    locator = tail[-end_size - locator_size : -end_size]
    if locator[:4] == b"PK\6\7" and len(tail) >= end_size + locator_size + end64_size:
        before -= locator_size + end64_size
        _, _, end64_at, _ = struct.unpack(_LOCATOR, locator)
        end64 = tail[-end_size - locator_size - end64_size : -end_size - locator_size]
        signature, _, _, _, disk, other_disk, here, count, length, start = struct.unpack(_END64, end64)
        if signature != b"PK\6\6" or end64_at != before:
            raise BadArchiveError("its end disagrees with itself")
    if comment or disk or other_disk or here != count or start + length != before:
        raise BadArchiveError("its directory does not lie before its end")
    if not count or length < count * struct.calcsize(_ENTRY):
        raise BadArchiveError(f"its directory of {length} bytes cannot name {count} records")
    return Directory(start, length, count)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    header: int
    nbytes: int
    crc: int
    descriptor_bytes: int

    def record(self, end: int, folder: bytes) -> Record:
        """The record, which ends where the next header (or the directory) starts."""
        if not self.path.startswith(folder) or len(self.path) == len(folder):
            raise BadArchiveError(f"{self.path!r} is not in the folder {folder!r}")
        try:
            name = self.path[len(folder) :].decode("ascii")
        except UnicodeDecodeError as error:
            raise BadArchiveError(f"{self.path!r} is no record of torch's") from error
        start = end - self.descriptor_bytes - self.nbytes
        if start < self.header + HEADER_BYTES + len(self.path):
            raise BadArchiveError(
                f"{name!r} claims {self.nbytes} bytes, more than lie before the next record"
            )
        return Record(name, self.header, start, self.nbytes, self.crc)


def _entries(directory: bytes, place: Directory) -> list[_Entry]:
    found: list[_Entry] = []
    position, fixed_size = 0, struct.calcsize(_ENTRY)
    for _ in range(place.count):
        fixed = directory[position : position + fixed_size]
        if len(fixed) < fixed_size or fixed[:4] != b"PK\1\2":
            raise BadArchiveError("its directory is cut short or damaged")
        values = struct.unpack(_ENTRY, fixed)
        flags, method, crc, packed, nbytes, name, extra, comment, disk = values[3], values[4], *values[7:14]
        header = values[16]
        start = position + fixed_size
        path = directory[start : start + name]
        position = start + name + extra + comment
        if position > len(directory) or not 0 < name <= _MAX_NAME_BYTES:
            raise BadArchiveError("its directory is cut short or damaged")
        if method or flags & _ENCRYPTED or comment or disk:
            raise BadArchiveError(f"{path!r} is compressed or encrypted, which no checkpoint's records are")
        nbytes, packed, header = _widened(
            directory[start + name : start + name + extra], (nbytes, packed, header)
        )
        if packed != nbytes or header >= place.start:
            raise BadArchiveError(f"{path!r} does not lie in the file")
        wide = nbytes >= _SATURATED_32 or header >= _SATURATED_32
        descriptor_bytes = (24 if wide else 16) if flags & _WITH_DESCRIPTOR else 0
        found.append(_Entry(path, header, nbytes, crc, descriptor_bytes))
    if position != len(directory):
        raise BadArchiveError("its directory is longer than its records")
    found.sort(key=lambda entry: entry.header)
    if any(one.header == other.header for one, other in pairwise(found)):
        raise BadArchiveError("two records lie at the same place")
    return found


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, ...]:
    """The sizes and the place, where they need 64 bits and stand in a field of their own."""
    if _SATURATED_32 not in values:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == 1:
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return tuple(next(wide, value) if value == _SATURATED_32 else value for value in values)
        position += 4 + length
    return values
