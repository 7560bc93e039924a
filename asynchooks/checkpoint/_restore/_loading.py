"""From the records of a file to a state: torch unpickles, over storages that are being filled meanwhile.

Decides which memory a storage gets, and what is no checkpoint. `torch.serialization._load` is what `torch.load` runs
behind its own zip reader; here it meets `_Records` in that reader's place, as `_serialize` meets `_save`. So the
guarded unpickler, devices and byte orders are torch's. Every storage is whole and compared before torch sees it.
"""

from __future__ import annotations

import ctypes
import pickle
from typing import TYPE_CHECKING, Any

import torch
from torch import _weights_only_unpickler
from torch.serialization import _load as unpickle

from asynchooks.checkpoint._hugepages import advise
from asynchooks.checkpoint._restore._archive import (
    END_BYTES,
    HEADER_BYTES,
    Archive,
    BadArchiveError,
    find_directory,
)
from asynchooks.checkpoint._restore._reading import Extent, Region
from asynchooks.errors import CheckpointError, CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asynchooks.checkpoint._restore._archive import Record
    from asynchooks.checkpoint._restore._reading import Filling, Reading

__all__ = [
    "Headers",
    "Storages",
    "beyond",
    "load",
    "load_with",
    "memory_of",
    "new_scratch",
    "read_archive",
    "refused",
    "storage_records",
    "upload",
]

_PICKLE = "data.pkl"
_TENSORS = "data/"


def read_archive(reading: Reading) -> Archive:
    """Find the records of a file.

    Raises:
        CorruptCheckpointError: it is damaged, or was made to look like a checkpoint.
    """
    try:
        tail = reading.bytes(max(0, reading.nbytes - END_BYTES), reading.nbytes)
        place = find_directory(tail, reading.nbytes)
        archive = Archive.parse(reading.bytes(place.start, place.start + place.nbytes), place)
        if not reading.is_verified:  # the layout of other writers is not ours to conclude
            found = [
                archive.placed(record, reading.bytes(record.header, record.header + HEADER_BYTES))
                for record in archive.records.values()
            ]
            archive = Archive(archive.folder, {record.name: record for record in found})
            reading.compare(
                Extent(each.start, each.end, f"record {each.name}", crc=each.crc) for each in found
            )
    except BadArchiveError as error:
        raise CorruptCheckpointError(
            f"{reading.where} is truncated or damaged, or no checkpoint: {error}."
        ) from error
    if _PICKLE not in archive.records:
        raise ForeignCheckpointError(
            f"{reading.where} is a zip archive, but no checkpoint: it has no {_PICKLE}."
        )
    return archive


def load(reading: Reading, archive: Archive, *, map_location: Any, weights_only: bool) -> Any:
    """Load all of a file, with every byte of it compared before it returns."""
    storages = Storages(storage_records(archive), device=_early_device(reading, archive, map_location))
    headers = Headers(reading, archive, storage_records(archive))
    with reading.filling([*storages.regions(), *headers.regions()], everything=True) as filling:
        state = load_with(
            reading,
            archive,
            lambda name: storages.wait(name, filling),
            map_location=map_location,
            weights_only=weights_only,
        )
    headers.check(reading.where)
    storages.check(reading.where)
    return state


def load_with(
    reading: Reading,
    archive: Archive,
    storage: Callable[[str], torch.UntypedStorage],
    *,
    map_location: Any,
    weights_only: bool,
) -> Any:
    """Unpickle the state over the storages that `storage` gives for their records' names.

    Raises:
        ForeignCheckpointError: it holds what `weights_only` refuses, or what torch cannot load.
    """
    records: Any = _Records(reading, archive, storage)
    module: Any = _weights_only_unpickler if weights_only else pickle
    try:
        # indices outside of a sparse tensor would reach outside of its memory
        with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            return unpickle(records, map_location, module, encoding="utf-8")  # type: ignore[no-untyped-call]
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except (
        Exception
    ) as error:  # a hostile or damaged pickle fails anywhere in torch; the caller is told the file
        raise refused(reading.where, error) from error


def refused(where: str, error: Exception) -> CheckpointError:
    """What to say of a file that torch could not unpickle."""
    if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or "Unsupported" in str(error)):
        return ForeignCheckpointError(
            f"{where} holds more than tensors and plain containers ({_brief(error)}): loading it would run code. "
            "Pass weights_only=False if you trust the file."
        )
    return ForeignCheckpointError(f"{where} is no checkpoint that torch can load ({_brief(error)}).")


def beyond(record: Record, where: str) -> str:
    """What to say of a tensor that is larger than its record."""
    return (
        f"{where}: a tensor reaches beyond the {record.nbytes} bytes of its record {record.name!r}. "
        "The file is damaged, or was made to do harm."
    )


def storage_records(archive: Archive) -> list[Record]:
    """The records that hold tensors' bytes."""
    return [record for name, record in archive.records.items() if name.startswith(_TENSORS)]


class Storages:
    """Memory for records, on the host or, filled piece by piece, on a device."""

    def __init__(self, records: Iterable[Record], *, device: torch.device | None = None) -> None:
        self._records = {record.name: record for record in records}
        self._storages = {name: _allocate(record.nbytes, device) for name, record in self._records.items()}
        self._on_host = device is None

    def regions(self) -> Iterator[Region]:
        """Where the bytes go."""
        for name, record in self._records.items():
            data = torch.empty(0, dtype=torch.uint8, device=self._storages[name].device)
            data.set_(self._storages[name])
            if self._on_host:
                yield Region(record.start, record.nbytes, memory_of(data))
            else:
                yield Region(record.start, record.nbytes, take=upload(data))

    def wait(self, name: str, filling: Filling) -> torch.UntypedStorage:
        """A record's storage, once it is filled and compared."""
        record = self._records[name]
        filling.wait(record.start, record.end)
        return self._storages[name]

    def drop(self, name: str) -> None:
        """Give the memory of a record back, as far as nobody else holds it."""
        del self._storages[name]

    def check(self, where: str) -> None:
        """Refuse what torch made larger: a tensor that reaches beyond its record would show other memory.

        Raises:
            CorruptCheckpointError: names the record.
        """
        for name, record in self._records.items():
            if self._storages[name].nbytes() != record.nbytes:
                raise CorruptCheckpointError(beyond(record, where))


class Headers:
    """What stands before records, read with them: it must agree with the directory, which says where they lie.

    Of a file without a manifest, `read_archive` has compared it already.
    """

    def __init__(self, reading: Reading, archive: Archive, records: Iterable[Record]) -> None:
        self._archive = archive
        self._records = list(records) if reading.is_verified else []
        self._bytes = bytearray(HEADER_BYTES * len(self._records))

    def regions(self) -> Iterator[Region]:
        """Where they lie in the file."""
        view = memoryview(self._bytes)
        for index, record in enumerate(self._records):
            yield Region(record.header, HEADER_BYTES, view[index * HEADER_BYTES : (index + 1) * HEADER_BYTES])

    def check(self, where: str) -> None:
        """Compare them, once they are read.

        Raises:
            CorruptCheckpointError: one disagrees.
        """
        for index, record in enumerate(self._records):
            header = bytes(self._bytes[index * HEADER_BYTES : (index + 1) * HEADER_BYTES])
            try:
                is_there = self._archive.placed(record, header) == record
            except BadArchiveError:
                is_there = False
            if not is_there:
                raise CorruptCheckpointError(
                    f"{where}: the record {record.name!r} does not lie where the directory says. "
                    "The file is damaged, or was made to do harm."
                )


class _Records:
    """Stands where torch expects its zip reader."""

    def __init__(
        self, reading: Reading, archive: Archive, storage: Callable[[str], torch.UntypedStorage]
    ) -> None:
        self._reading = reading
        self._archive = archive
        self._storage = storage

    def has_record(self, name: str) -> bool:
        # with this one, torch would compute where its own writer puts records instead of asking
        return name in self._archive.records and name != ".format_version"

    def get_record(self, name: str) -> bytes:
        record = self._record(name)
        return self._reading.bytes(record.start, record.end)

    def get_record_offset(self, name: str) -> int:
        return self._record(name).start

    def get_storage_from_record(self, name: str, nbytes: int, kind: object) -> torch.Tensor:
        """As much of the record as the pickle names; torch's own reader believes any number."""
        del kind
        record = self._record(name)
        if not name.startswith(_TENSORS) or not record.nbytes - 16 < nbytes <= record.nbytes:
            raise CorruptCheckpointError(
                f"{self._reading.where}: the state asks for {nbytes} bytes of the record {name!r}, "
                f"which has {record.nbytes}. The file is damaged, or was made to do harm."
            )
        storage = self._storage(name)
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

    def serialization_id(self) -> str:
        return ""  # torch reports it to a hook that nobody sets

    def _record(self, name: str) -> Record:
        if name not in self._archive.records:
            raise CorruptCheckpointError(
                f"{self._reading.where}: the state names a record {name!r}, which is not in the file."
            )
        return self._archive.records[name]


def _allocate(nbytes: int, device: torch.device | None) -> torch.UntypedStorage:
    if device is not None:
        return torch.empty(nbytes, dtype=torch.uint8, device=device).untyped_storage()
    storage = torch.UntypedStorage(nbytes)  # type: ignore[no-untyped-call]
    advise(storage.data_ptr(), nbytes)
    return storage


def memory_of(data: torch.Tensor) -> memoryview:
    """The bytes of a tensor of bytes on the host. `Tensor.numpy` would forbid its storage ever to be resized."""
    address = data.data_ptr()
    return memoryview((ctypes.c_ubyte * data.nbytes).from_address(address)).cast("B")


def new_scratch(nbytes: int) -> memoryview:
    """Memory for bytes on their way; a device takes them faster from pages that stay where they are."""
    has_device = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=has_device).numpy().data


def upload(data: torch.Tensor) -> Callable[[int, memoryview], object]:
    """Takes pieces of bytes to where they belong in a tensor of bytes on a device."""
    return lambda offset, piece: data[offset : offset + piece.nbytes].copy_(
        torch.frombuffer(piece, dtype=torch.uint8)
    )


def _early_device(reading: Reading, archive: Archive, map_location: Any) -> torch.device | None:
    """The device that every storage goes to, so that it needs no place on the host; None where that is not known."""
    if not isinstance(map_location, (str, torch.device)) or not torch.cuda.is_available():
        return None
    is_swapped = (
        "byteorder" in archive.records
        and reading.bytes(archive.records["byteorder"].start, archive.records["byteorder"].end) != b"little"
    )
    device = torch.device(map_location)
    return device if device.type == "cuda" and not is_swapped else None


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next(
        (line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else ""
    )
    return f"{type(error).__name__}: {named[:300]}"
