"""The bytes of one file at a store: many ranges at once, straight into the memory that wants them, summed on the way.

Decides what is read when, and whether it is what was saved. Knows no archive and no tensor: callers say which
regions of the file go where. Memory is the regions, and one step of what nobody wants per thread. A store that
cannot read ranges well is read once, as a stream, into pages that are given back as they are used.
"""

from __future__ import annotations

import mmap
import threading
import zlib
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xxhash

from asynchooks.checkpoint._catalog import url_of
from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._storage import Stopped, scatter, unlimited
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from asynchooks.checkpoint._manifest import Manifest
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["Extent", "Filling", "Reading", "Region"]


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes that are compared together: by their xxh3 (``digest``), or their CRC-32, or not at all."""

    start: int
    end: int
    what: str
    digest: str = ""
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of the file that somebody wants.

    Attributes:
        start: offset of the first.
        nbytes: how many.
        memory: where they go; None hands them on instead.
        take: told ``(offset in the region, bytes)``, on a reading thread; the bytes are gone afterwards.
    """

    start: int
    nbytes: int
    memory: memoryview | None = None
    take: Callable[[int, memoryview], object] | None = None


class Reading:
    """One file, which is read in parts. Any thread.

    Args:
        store: its store.
        name: its name there.
        nbytes: its length, as the manifest or the store says.
        manifest: what it must hold; None for a file that nothing describes.
        scratch: gives memory for so many bytes, which a thread then keeps.
        progress: told how many more bytes of a filling were read and compared, on reading threads, one at a time;
            what it raises stops the filling.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        nbytes: int,
        manifest: Manifest | None = None,
        *,
        scratch: Callable[[int], memoryview] | None = None,
        progress: Progress = unlimited,
    ) -> None:
        self.where = url_of(store, name)
        self.nbytes = nbytes
        self.is_verified = manifest is not None
        self._save = "" if manifest is None else f" (save {manifest.save_id})"
        self._scratch = _Scratch(scratch or (lambda nbytes: np.empty(nbytes, np.uint8).data))
        self._extents = [] if manifest is None else list(_extents(manifest))
        self._kept: dict[int, bytes] = {}
        self._source: _Source = _Ranges(store, name)
        self._stopped = False
        self._progress = progress
        self._telling = threading.Lock()
        if nbytes:
            self.bytes(0, 1)
        if store.parallel_reads == 1:
            self._source = _Spool.of(store, name, nbytes)

    def compare(self, extents: Iterable[Extent], *, save: str = "") -> None:
        """Say what a file without a manifest of its own can be compared with, and how errors name its save."""
        self._extents = sorted(extents, key=lambda extent: extent.start)
        self._save = save

    def bytes(self, start: int, end: int) -> bytes:
        """A few bytes, compared before they are returned.

        Raises:
            CorruptCheckpointError: they, or what is compared together with them, differ.
        """
        data = bytearray(end - start)
        view = memoryview(data)
        if not self._extents:
            self._fill(start, [view], "the file")
            return bytes(data)
        for index in self._overlapping(start, end):
            extent = self._extents[index]
            if index not in self._kept and extent.end - extent.start <= CHUNK_BYTES:
                kept = bytearray(extent.end - extent.start)
                self._read(index, [Region(extent.start, len(kept), memoryview(kept))])
                self._kept[index] = bytes(kept)
            if index in self._kept:
                first, last = max(start, extent.start), min(end, extent.end)
                view[first - start : last - start] = self._kept[index][
                    first - extent.start : last - extent.start
                ]
            else:
                self._read(index, [Region(start, end - start, view)])
        return bytes(data)

    @contextmanager
    def filling(
        self, regions: Iterable[Region], *, everything: bool, again: bool = False
    ) -> Iterator[Filling]:
        """Fill the regions in the background while the block runs; compare all of the file, or what they touch.

        `again`: parts of the same chunks may be asked for by another filling.

        Leaving the block waits for what is left of it; leaving it with an exception stops the reading.
        """
        if not self._extents:  # nothing to compare with: read all the same
            starts = range(0, self.nbytes, CHUNK_BYTES)
            self.compare(Extent(start, min(start + CHUNK_BYTES, self.nbytes), "the file") for start in starts)
        wanted = sorted((region for region in regions if region.nbytes), key=lambda region: region.start)
        reads: dict[int, list[Region]] = {index: [] for index in range(len(self._extents)) if everything}
        for region in wanted:
            end, covered = region.start + region.nbytes, 0
            for index in self._overlapping(region.start, end):
                reads.setdefault(index, []).append(region)
                covered += min(end, self._extents[index].end) - max(region.start, self._extents[index].start)
            if covered != region.nbytes:  # memory that nobody fills must never look like a tensor
                raise CorruptCheckpointError(
                    f"{self.where}: nothing in the file describes all of the bytes {region.start} to {end}."
                )
        futures: dict[int, Future[None]] = {}
        with ThreadPoolExecutor(self._source.parallel, thread_name_prefix="asynchooks-read") as threads:
            try:
                for index in sorted(reads):
                    if index in self._kept and not reads[index]:
                        self._tell(index)
                    else:
                        futures[index] = threads.submit(self._read_once, index, reads[index], again=again)
                yield Filling(self._overlapping, futures)
                for future in futures.values():
                    future.result()
            finally:
                self._stopped = True
                threads.shutdown(wait=True, cancel_futures=True)
                self._stopped = False

    def _overlapping(self, start: int, end: int) -> range:
        first = bisect_right(self._extents, start, key=lambda extent: extent.end)
        last = first
        while last < len(self._extents) and self._extents[last].start < end:
            last += 1
        return range(first, last)

    def _read_once(self, index: int, regions: Sequence[Region], *, again: bool) -> None:
        self._read(index, regions, release=not again)
        self._tell(index)

    def _tell(self, index: int) -> None:
        with self._telling:
            self._progress(self._extents[index].end - self._extents[index].start)

    def _read(self, index: int, regions: Sequence[Region], *, release: bool = False) -> None:
        """Read one extent in steps, into the regions, and compare it; `release`: it is not read again."""
        extent = self._extents[index]
        hasher, crc = xxhash.xxh3_128(), 0
        for start in range(extent.start, extent.end, CHUNK_BYTES):
            if self._stopped:
                raise Stopped  # the one who stopped it knows why
            end = min(start + CHUNK_BYTES, extent.end)
            pieces = list(self._pieces(start, end, regions))
            self._fill(start, [piece for piece, _, _ in pieces], extent.what)
            for piece, offset, region in pieces:
                if extent.digest:
                    hasher.update(piece)
                elif extent.crc:
                    crc = zlib.crc32(piece, crc)
                if region is not None and region.take is not None:
                    region.take(offset, piece)
            if release:
                self._source.release(start, end)
        if (extent.digest and hasher.hexdigest() != extent.digest) or (extent.crc and crc != extent.crc):
            raise CorruptCheckpointError(
                f"{self.where}: {extent.what}, bytes {extent.start} to {extent.end}, differs from what was saved"
                f"{self._save}. Load an older checkpoint."
            )

    def _pieces(
        self, start: int, end: int, regions: Sequence[Region]
    ) -> Iterator[tuple[memoryview, int, Region | None]]:
        """Memory for the bytes from `start` to `end`: parts of regions, and scratch for what nobody wants."""
        scratch = self._scratch.take(end - start)
        position = start
        first = bisect_right(regions, start, key=lambda region: region.start + region.nbytes)
        for region in regions[first:]:
            if region.start >= end:
                break
            if region.start > position:
                piece, scratch = scratch[: region.start - position], scratch[region.start - position :]
                yield piece, 0, None
                position = region.start
            offset, length = (
                position - region.start,
                min(end, region.start + region.nbytes) - position,
            )
            if region.memory is None:
                piece, scratch = scratch[:length], scratch[length:]
            else:
                piece = region.memory[offset : offset + length]
            yield piece, offset, region
            position += length
        if position < end:
            yield scratch[: end - position], 0, None

    def _fill(self, start: int, buffers: Sequence[memoryview], what: str) -> None:
        nbytes = sum(buffer.nbytes for buffer in buffers)
        at_end = start + nbytes == self.nbytes
        beyond = [memoryview(bytearray(1))] if at_end else []
        filled = self._source.fill(start, [*buffers, *beyond])
        if filled < nbytes:
            raise CorruptCheckpointError(
                f"{self.where}: {what} ends at byte {start + filled}, but the file should have {self.nbytes}"
                f"{self._save}. It was truncated or overwritten; load an older checkpoint."
            )
        if filled > nbytes:
            raise CorruptCheckpointError(
                f"{self.where} is longer than its {self.nbytes} bytes{self._save}: it was overwritten."
            )


class Filling:
    """What is being read. `wait` on the thread that opened it."""

    def __init__(self, overlapping: Callable[[int, int], range], futures: dict[int, Future[None]]) -> None:
        self._overlapping = overlapping
        self._futures = futures

    def wait(self, start: int, end: int) -> None:
        """Block until the bytes from `start` to `end` are where they belong, and compared.

        Raises:
            CorruptCheckpointError: they differ.
        """
        for index in self._overlapping(start, end):
            if index in self._futures:
                self._futures[index].result()


def _extents(manifest: Manifest) -> Iterator[Extent]:
    ends = list(accumulate(chunk.nbytes for chunk in manifest.chunks))
    for index, (chunk, end) in enumerate(zip(manifest.chunks, ends, strict=True)):
        yield Extent(end - chunk.nbytes, end, f"chunk {index}", digest=chunk.digest)


class _Scratch(threading.local):
    """Memory of one thread for bytes that are read and not kept."""

    def __init__(self, allocate: Callable[[int], memoryview]) -> None:
        self._allocate = allocate
        self._memory = memoryview(b"")

    def take(self, nbytes: int) -> memoryview:
        if self._memory.nbytes < nbytes:
            self._memory = self._allocate(nbytes)
        return self._memory


class _Source(Protocol):
    @property
    def parallel(self) -> int: ...

    def fill(self, start: int, buffers: Sequence[memoryview]) -> int: ...

    def release(self, start: int, end: int) -> None: ...


class _Ranges:
    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    @property
    def parallel(self) -> int:
        return self._store.parallel_reads

    def fill(self, start: int, buffers: Sequence[memoryview]) -> int:
        return self._store.read_into(self._name, start, buffers)

    def release(self, start: int, end: int) -> None:
        """Nothing is held."""


class _Spool:
    """A stream that was read into memory of our own; each page of it goes back once it was used."""

    parallel = 2

    def __init__(self, pages: mmap.mmap, nbytes: int) -> None:
        self._pages = pages
        self._nbytes = nbytes

    @classmethod
    def of(cls, store: Store, name: str, nbytes: int) -> _Spool:
        pages = mmap.mmap(-1, nbytes + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        filled = 0
        room = memoryview(pages)
        with closing(store.read(name)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                filled += scatter(piece[: len(room) - filled], [room[filled:]])
                if filled > nbytes:
                    break
        return cls(pages, filled)

    def fill(self, start: int, buffers: Sequence[memoryview]) -> int:
        nbytes = min(sum(buffer.nbytes for buffer in buffers), max(0, self._nbytes - start))
        with memoryview(self._pages) as pages, pages[start : start + nbytes] as piece:
            return scatter(piece, buffers)

    def release(self, start: int, end: int) -> None:
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)
