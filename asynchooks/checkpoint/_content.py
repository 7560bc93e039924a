"""The bytes of one file, as the buffers that already hold them, and their checksums.

Decides how buffers become chunks and how chunks are summed. Knows neither torch nor a store. Nothing here
copies what is larger than a chunk, and every call on large buffers releases the GIL: numpy copies and xxh3 in
16 MiB pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from asynchooks.checkpoint._manifest import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CHUNK_BYTES", "Content", "checksum", "chunk_plan", "digest"]

CHUNK_BYTES = 16 * 2**20
"""Chunk length for checksums and reads: small enough to locate damage, large enough to release the GIL."""


@dataclass(frozen=True, slots=True)
class Content:
    """What one file will hold: contiguous byte buffers in order. They must not change while it lives."""

    buffers: tuple[memoryview, ...]
    nbytes: int

    @classmethod
    def of(cls, *buffers: bytes | bytearray | memoryview) -> Content:
        """Build a content from bytes-like objects."""
        views = tuple(memoryview(buffer).cast("B") for buffer in buffers if len(buffer))
        return cls(views, sum(view.nbytes for view in views))

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the content in pieces of `chunk_bytes`, the last one shorter.

        A piece that lies inside one buffer is a view of it; one that spans several is gathered into a new
        buffer.
        """
        gathered = np.empty(0, np.uint8)
        filled = 0
        for buffer in self.buffers:
            start = 0
            while start < buffer.nbytes:
                if not filled and buffer.nbytes - start >= chunk_bytes:
                    yield buffer[start : start + chunk_bytes]
                    start += chunk_bytes
                    continue
                if not filled:
                    gathered = np.empty(chunk_bytes, np.uint8)
                length = min(chunk_bytes - filled, buffer.nbytes - start)
                np.copyto(
                    gathered[filled : filled + length],
                    np.frombuffer(buffer[start : start + length], np.uint8),
                )
                filled += length
                start += length
                if filled == chunk_bytes:
                    yield gathered.data
                    filled = 0
        if filled:
            yield gathered[:filled].data


def chunk_plan(nbytes: int, start: int, end: int) -> Iterator[int]:
    """Yield the lengths of the checksummed chunks: the head, the region `start` to `end` in chunks, the tail.

    The region holds the tensors. Its chunks do not depend on the length of the head, so that equal tensors
    have equal checksums in two files whose heads differ.
    """
    if start:
        yield start
    for offset in range(start, end, CHUNK_BYTES):
        yield min(CHUNK_BYTES, end - offset)
    if nbytes > end:
        yield nbytes - end


def checksum(content: Content, plan: Iterable[int]) -> tuple[Chunk, ...]:
    """Sum the content in chunks of the planned lengths, in one pass over the buffers and without a copy."""
    pieces = _Pieces(content.buffers)
    return tuple(Chunk(length, digest(pieces.take(length))) for length in plan)


def digest(buffers: Iterable[bytes | memoryview]) -> str:
    """The xxh3 of the buffers, 128 bits in hexadecimal; summed in pieces that release the GIL."""
    hasher = xxhash.xxh3_128()
    for buffer in buffers:
        for start in range(0, len(buffer), CHUNK_BYTES):
            hasher.update(memoryview(buffer)[start : start + CHUNK_BYTES])
    return hasher.hexdigest()


class _Pieces:
    """Takes the next so many bytes from a sequence of buffers, as views."""

    def __init__(self, buffers: Iterable[memoryview]) -> None:
        self._buffers = iter(buffers)
        self._rest = memoryview(b"")

    def take(self, nbytes: int) -> Iterator[memoryview]:
        while nbytes:
            if not self._rest.nbytes:
                self._rest = next(self._buffers)
            piece, self._rest = self._rest[:nbytes], self._rest[nbytes:]
            nbytes -= piece.nbytes
            yield piece
