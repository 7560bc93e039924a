"""Reading the items of a plan: many files, many places in each, straight into the tensors that want them.

Decides which bytes are read straight into a tensor: those that lie in memory as in the file. Others are read beside
it, a bounded number at a time, and copied. What stands around a tensor is read first and tells where its bytes are;
with a manifest all that is read is compared, these first bytes too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from asynchooks.checkpoint._catalog import url_of
from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._restore._inplace import apart, lies_alike, region_of
from asynchooks.checkpoint._restore._loading import memory_of, new_scratch
from asynchooks.checkpoint._restore._reading import Extent, Reading, Region
from asynchooks.checkpoint._sharded._archived import Item, Placed, load_object, tensor_in
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

    from asynchooks.checkpoint._sharded._folder import Folder
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["ObjectWanted", "TensorWanted", "read_wanted"]

_AROUND_BYTES = 64 * 2**10
_MOST_AROUND_BYTES = 2**20
_BESIDE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class TensorWanted:
    """A box of a saved shard, and the tensor of its size that it goes to."""

    place: _StorageInfo
    chunk: ChunkStorageMetadata
    dtype: torch.dtype
    offsets: Sequence[int]
    sizes: Sequence[int]
    target: torch.Tensor


@dataclass(frozen=True, slots=True)
class ObjectWanted:
    """An object, and who is told it: on the thread that reads the plan."""

    place: _StorageInfo
    take: Callable[[Any], object]


def read_wanted(
    folder: Folder,
    tensors: Iterable[TensorWanted],
    objects: Iterable[ObjectWanted],
    *,
    weights_only: bool,
    progress: Progress,
) -> None:
    """Fill the tensors, hand on the objects. Blocks; one file after the other, each by many threads.

    Raises:
        CorruptCheckpointError: bytes differ from what was saved; tensors may be partly overwritten then.
        ForeignCheckpointError: an item is in a format that is not DCP's own, or refused.
    """
    files: dict[str, _File] = {}
    for wanted in tensors:
        if wanted.target.numel():
            files.setdefault(wanted.place.relative_path, _File()).tensors[
                _key(wanted.place, folder.store)
            ].append(wanted)
    for each in objects:
        files.setdefault(each.place.relative_path, _File()).objects[_key(each.place, folder.store)].append(
            each
        )
    loaded: list[tuple[ObjectWanted, Any]] = []
    for name in sorted(files):
        loaded += _FileReader(folder, name, progress).read(files[name], weights_only=weights_only)
    for each, value in loaded:
        each.take(value)


@dataclass(slots=True)
class _File:
    """What is wanted of a data file, by (offset, length) of the items."""

    tensors: dict[tuple[int, int], list[TensorWanted]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[tuple[int, int], list[ObjectWanted]] = field(default_factory=lambda: defaultdict(list))


def _nothing() -> torch.UntypedStorage:
    return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class _Job:
    """One tensor item that is read: where its bytes are, and what becomes of them."""

    offset: int
    nbytes: int
    placed: Placed
    wanted: list[tuple[torch.Tensor, torch.Tensor]]
    """Pairs of (target, the saved box without its bytes)."""
    crc: int
    around: list[tuple[int, bytes]]
    span: tuple[int, int] = (0, 0)
    """Which bytes of the file hold the boxes."""
    beside: torch.UntypedStorage = field(default_factory=_nothing)


class _FileReader:
    def __init__(self, folder: Folder, name: str, progress: Progress) -> None:
        self._where = url_of(folder.store, name)
        self._nbytes = folder.nbytes_of(name)
        self._digests = folder.extents_of(name)
        self._save = folder.save
        self._reading = Reading(folder.store, name, self._nbytes, scratch=new_scratch, progress=progress)
        self._threads = folder.store.parallel_reads

    def read(self, file: _File, *, weights_only: bool) -> list[tuple[ObjectWanted, Any]]:
        keys = sorted({*file.tensors, *file.objects})
        self._check_apart(keys)
        known = self._read_around(
            {key: _around(key, file.tensors[key][0], self._shown(key)) for key in keys if key in file.tensors}
        )
        jobs = [self._job(key, file.tensors[key], known) for key in keys if key in file.tensors]
        buffers = {key: memoryview(bytearray(key[1])) for key in file.objects}
        direct = self._direct(jobs)
        for wave in _waves(jobs, direct):
            self._fill(wave, direct, {})
        if buffers:
            self._fill([], direct, buffers)
        loaded = []
        for key, buffer in buffers.items():
            item = Item(self._shown(key), key[1], partial(_cut, buffer))
            value = load_object(item, weights_only=weights_only)
            loaded += [(each, value) for each in file.objects[key]]
        return loaded

    def _shown(self, key: tuple[int, int]) -> str:
        return f"{self._where}, item at {key[0]}"

    def _check_apart(self, keys: list[tuple[int, int]]) -> None:
        end = 0
        for offset, length in keys:
            if offset < end or offset + length > self._nbytes:
                raise CorruptCheckpointError(
                    f"{self._where}: an item of {length} bytes at {offset} lies over another, or beyond the file's "
                    f"{self._nbytes} bytes. The metadata, or the file, is damaged."
                )
            end = offset + length

    def _read_around(self, spans: dict[tuple[int, int], list[tuple[int, int]]]) -> _Known:
        """What stands around the tensors, many at once; neighbours in one read."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted(span for each in spans.values() for span in each):
            if joined and start <= joined[-1][1] + 4096 and end - joined[-1][0] <= CHUNK_BYTES:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="asynchooks-read") as threads:
            found = list(threads.map(lambda span: self._reading.bytes(*span), joined))
        return _Known([(start, data) for (start, _), data in zip(joined, found, strict=True)], self._reading)

    def _job(self, key: tuple[int, int], wanted: list[TensorWanted], known: _Known) -> _Job:
        offset, length = key
        item = Item(self._shown(key), length, lambda start, end: known.bytes(offset + start, offset + end))
        try:
            placed = tensor_in(item)
        except ForeignCheckpointError:
            self._compare(key)  # what is damaged looks foreign
            raise
        first = wanted[0]
        if placed.tensor.shape != first.chunk.sizes or placed.tensor.dtype != first.dtype:
            raise CorruptCheckpointError(
                f"{item.where} holds {placed.tensor.dtype} {tuple(placed.tensor.shape)}, but the metadata says "
                f"{first.dtype} {tuple(first.chunk.sizes)}: one of them is damaged."
            )
        pairs = [(each.target, _box(placed.tensor, each.offsets, each.sizes)) for each in wanted]
        start = offset + placed.record.start
        ends = [_extent(box) for _, box in pairs]
        around = [
            (at, known.bytes(at, end))
            for at, end in ((offset, start), (start + placed.record.nbytes, offset + length))
            if end > at and self._digests
        ]
        span = (start + min(first for first, _ in ends), start + max(end for _, end in ends))
        return _Job(offset, length, placed, pairs, placed.record.crc, around, span)

    def _compare(self, key: tuple[int, int]) -> None:
        """Raise where an item's bytes differ from what the manifest says of them, if there is one."""
        if self._digests:
            self._reading.compare(self._digests, save=self._save)
            region = Region(*key, take=lambda _offset, _data: None)
            with self._reading.filling([region], everything=False):
                pass

    def _direct(self, jobs: list[_Job]) -> dict[int, Region]:
        """Which jobs' bytes go straight into their target."""
        alike = {
            index: job.wanted[0][0]
            for index, job in enumerate(jobs)
            if len(job.wanted) == 1 and lies_alike(*job.wanted[0])
        }
        alone = apart(
            (target.data_ptr(), target.data_ptr() + target.nbytes, index) for index, target in alike.items()
        )
        return {id(jobs[index]): region_of(jobs[index].span[0], alike[index]) for index in alone}

    def _fill(
        self, jobs: list[_Job], direct: dict[int, Region], objects: dict[tuple[int, int], memoryview]
    ) -> None:
        regions: list[Region] = [Region(key[0], key[1], memory) for key, memory in objects.items()]
        again: list[tuple[int, bytes, bytearray]] = []
        for job in jobs:
            start, end = job.span
            if id(job) in direct:
                regions.append(direct[id(job)])
            else:
                job.beside = torch.UntypedStorage(end - start)  # type: ignore[no-untyped-call]
                regions.append(Region(start, end - start, _memory(job.beside)))
            for at, data in job.around:
                again.append((at, data, bytearray(len(data))))
                regions.append(Region(at, len(data), memoryview(again[-1][2])))
        self._reading.compare(self._digests or _extents(jobs, objects), save=self._save)
        with self._reading.filling(regions, everything=False, again=True) as filling, torch.no_grad():
            for job in jobs:
                if id(job) not in direct:
                    filling.wait(*job.span)
                    for target, box in job.wanted:
                        target.copy_(_over(job, box))
                    job.beside = _nothing()
        for at, data, read in again:
            if data != read:
                raise CorruptCheckpointError(
                    f"{self._where} changed while it was read (byte {at}): something overwrites it."
                )


class _Known:
    """Bytes of a file that were read beforehand; others are read when they are asked for."""

    def __init__(self, pieces: list[tuple[int, bytes]], reading: Reading) -> None:
        self._pieces = pieces
        self._starts = [start for start, _ in pieces]
        self._reading = reading

    def bytes(self, start: int, end: int) -> bytes:
        index = bisect_right(self._starts, start) - 1
        if index >= 0:
            first, data = self._pieces[index]
            if end <= first + len(data):
                return data[start - first : end - first]
        return self._reading.bytes(start, end)


def _key(place: _StorageInfo, store: Store) -> tuple[int, int]:
    where = url_of(store, place.relative_path)
    if place.transform_descriptors:
        raise ForeignCheckpointError(
            f"{where} was transformed by {list(place.transform_descriptors)[:4]} when it was saved. "
            "Load it with torch.distributed.checkpoint's own reader and these extensions."
        )
    if place.relative_path.endswith(".safetensors"):
        raise ForeignCheckpointError(
            f"{where} is in the format safetensors, and this reads what torch.save wrote. Load it with "
            "torch.distributed.checkpoint's own reader."
        )
    return place.offset, place.length


def _around(key: tuple[int, int], wanted: TensorWanted, where: str) -> list[tuple[int, int]]:
    """The first and last bytes of an item, as far as its tensor may not reach."""
    offset, length = key
    nbytes = wanted.dtype.itemsize
    for size in wanted.chunk.sizes:
        nbytes *= size
    if nbytes >= length:
        raise CorruptCheckpointError(
            f"{where}: an item of {length} bytes cannot hold the {nbytes} of its tensor: the "
            "metadata is damaged."
        )
    if length - nbytes > _MOST_AROUND_BYTES:
        raise ForeignCheckpointError(
            f"{where}: an item of {length} bytes for a tensor of {nbytes}: nothing known "
            "writes so. Load it with torch.distributed.checkpoint's own reader."
        )
    around = min(length - nbytes, _AROUND_BYTES)
    if 2 * around >= length:
        return [(offset, offset + length)]
    return [(offset, offset + around), (offset + length - around, offset + length)]


def _box(tensor: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    for dimension, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        tensor = tensor.narrow(dimension, offset, size)
    return tensor


def _extent(box: torch.Tensor) -> tuple[int, int]:
    """Its bytes in its storage."""
    first = int(box.storage_offset())
    last = first + sum((size - 1) * stride for size, stride in zip(box.size(), box.stride(), strict=True))
    return first * box.element_size(), (last + 1) * box.element_size()


def _over(job: _Job, box: torch.Tensor) -> torch.Tensor:
    """The saved box, over the bytes that were read beside it."""
    skipped = (job.span[0] - job.offset - job.placed.record.start) // box.element_size()
    made = torch.empty(0, dtype=box.dtype).set_(
        job.beside, int(box.storage_offset()) - skipped, box.size(), box.stride()
    )
    made = made.conj() if box.is_conj() else made
    return torch._neg_view(made) if box.is_neg() else made  # noqa: SLF001 - torch has no public way


def _cut(data: memoryview, start: int, end: int) -> bytes:
    return bytes(data[start:end])


def _memory(storage: torch.UntypedStorage) -> memoryview:
    return memory_of(torch.empty(0, dtype=torch.uint8).set_(storage))


def _waves(jobs: list[_Job], direct: dict[int, Region]) -> Iterator[list[_Job]]:
    """The jobs in order, as many at once as need no more than so much memory beside the tensors."""
    wave: list[_Job] = []
    beside = 0
    for job in jobs:
        needed = 0 if id(job) in direct else job.span[1] - job.span[0]
        if wave and beside + needed > _BESIDE_BYTES:
            yield wave
            wave, beside = [], 0
        wave.append(job)
        beside += needed
    if wave:
        yield wave


def _extents(jobs: list[_Job], objects: Iterable[tuple[int, int]]) -> Iterator[Extent]:
    """What can be compared without a manifest: tensors that are read whole, with the sums that torch wrote."""
    for job in jobs:
        start, end = job.span
        if job.crc and end - start == job.placed.record.nbytes:
            yield Extent(start, end, "a tensor", crc=job.crc)
        else:
            yield from _steps(start, end)
    for offset, length in objects:
        yield from _steps(offset, offset + length)


def _steps(start: int, end: int) -> Iterator[Extent]:
    for at in range(start, end, CHUNK_BYTES):
        yield Extent(at, min(at + CHUNK_BYTES, end), "an item")
