"""The files of a checkpoint, as its manifest describes them: names, lengths, checksums.

Decides how long the checksummed chunks of a sharded checkpoint's files are, so that its manifest stays small however
large it is, and which names its files may have. Pure: it reads no file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynchooks.errors import UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "MAX_FILES",
    "METADATA",
    "Chunk",
    "File",
    "check_file_name",
    "chunk_bytes_for",
    "chunk_lengths",
    "file_from_document",
    "save_id_of",
]

METADATA = ".metadata"
"""The file of a folder in DCP format that says which data files count, and what is where in them."""

MAX_FILES = 32_768
"""Of one sharded checkpoint, so that its manifest stays below 16 MiB: see `chunk_bytes_for`."""

_LEAST_CHUNK_BYTES = 16 * 2**20
_CHUNKS_OF_ALL = 2**18
_LEAST_CHUNKS = 8
_DIGEST = 32
_MAX_INT = 2**63 - 1
_MAX_NAME_BYTES = 255
_DIGESTS = re.compile(r"[0-9a-f]*")
_DATA = re.compile(r"__\d+_\d+\.([0-9a-f]{32})\.distcp")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes in a file and its xxh3 (128 bits, hexadecimal)."""

    nbytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class File:
    """One file in the folder of a sharded checkpoint. Small: a manifest may hold thousands.

    Attributes:
        name: in the folder.
        nbytes: its length.
        chunk_bytes: length of its chunks; the last one may be shorter.
        digests: the xxh3 of each chunk, 32 hexadecimal digits each, joined.
    """

    name: str
    nbytes: int
    chunk_bytes: int
    digests: str

    @classmethod
    def of(cls, name: str, chunks: Sequence[Chunk], chunk_bytes: int) -> File:
        """The file that was summed in chunks of `chunk_bytes`, the last one shorter."""
        if any(chunk.nbytes != chunk_bytes for chunk in chunks[:-1]):
            raise ValueError(f"{name}: all chunks but the last are {chunk_bytes} bytes long")
        digests = "".join(chunk.digest for chunk in chunks)
        return cls(name, sum(chunk.nbytes for chunk in chunks), chunk_bytes, digests)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Its chunks, in order."""
        lengths = chunk_lengths(self.nbytes, self.chunk_bytes)
        starts = range(0, len(self.digests), _DIGEST)
        return tuple(
            Chunk(length, self.digests[start : start + _DIGEST])
            for length, start in zip(lengths, starts, strict=True)
        )

    def document(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {
            "name": self.name,
            "size": self.nbytes,
            "chunk_bytes": self.chunk_bytes,
            "chunks": self.digests,
        }


def chunk_bytes_for(nbytes: int, *, nfiles: int) -> int:
    """How long the chunks of a file are that is one of about `nfiles` of a checkpoint.

    16 MiB, doubled until the file has no more than its share of 262,144 chunks, or eight: the manifest of 16,384
    files of any length takes less than 11 MiB, one of 10 TB in 1,024 files less than 9. The same on every rank that
    knows the number of ranks.
    """
    allowed = max(_LEAST_CHUNKS, _CHUNKS_OF_ALL // max(1, nfiles))
    chunk_bytes = _LEAST_CHUNK_BYTES
    while nbytes > allowed * chunk_bytes:
        chunk_bytes *= 2
    return chunk_bytes


def chunk_lengths(nbytes: int, chunk_bytes: int) -> Iterator[int]:
    """Yield the lengths of a file's chunks: what `checksum` is to sum by."""
    for start in range(0, nbytes, chunk_bytes):
        yield min(chunk_bytes, nbytes - start)


def check_file_name(name: str) -> str:
    """Return the name if it is one safe path component for a file in a sharded checkpoint's folder.

    Raises:
        UnsafePathError: it would leave the folder, or hide; `.metadata` alone may.
    """
    unsafe = not name or any(sign in "/\\\x7f" or sign < " " for sign in name)
    if unsafe or (name.startswith(".") and name != METADATA):
        raise UnsafePathError(f"{name!r} is no name of a file inside a sharded checkpoint.")
    if len(name.encode(errors="surrogateescape")) > _MAX_NAME_BYTES:
        raise UnsafePathError(f"{name[:40]!r}...: a file's name is at most {_MAX_NAME_BYTES} bytes long.")
    return name


def save_id_of(name: str) -> str | None:
    """The save that wrote a data file of ours; None for any other name."""
    found = _DATA.fullmatch(name)
    return found[1] if found else None


def file_from_document(document: Mapping[str, Any]) -> File:
    """Read what JSON says of a file, believing nothing.

    Raises:
        KeyError, TypeError, ValueError, UnsafePathError: it is garbled.
    """
    name, nbytes, chunk_bytes, digests = (document[key] for key in ("name", "size", "chunk_bytes", "chunks"))
    if not isinstance(name, str) or not isinstance(digests, str):
        raise TypeError("files")
    check_file_name(name)
    if type(nbytes) is not int or not 0 <= nbytes <= _MAX_INT:
        raise ValueError(f"the size of {name!r}")
    if type(chunk_bytes) is not int or not 0 < chunk_bytes <= _MAX_INT:
        raise ValueError(f"the chunks of {name!r}")
    if len(digests) != -(-nbytes // chunk_bytes) * _DIGEST or not _DIGESTS.fullmatch(digests):
        raise ValueError(f"the checksums of {name!r}")
    return File(name, nbytes, chunk_bytes, digests)
