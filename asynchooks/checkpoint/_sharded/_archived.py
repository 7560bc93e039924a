"""One item of a data file: an archive of `torch.save` somewhere inside it, read without its tensor's bytes.

Decides where a tensor's bytes lie in the file, and what is no item. What stands around a tensor is read before, so
nothing here waits for a store but what is laid out as no known writer does.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from asynchooks.checkpoint._restore._loading import load_with, read_archive
from asynchooks.checkpoint._restore._outline import outline_of
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asynchooks.checkpoint._restore._archive import Archive, Record
    from asynchooks.checkpoint._restore._reading import Extent

__all__ = ["Item", "Placed", "load_object", "tensor_in"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A saved tensor without its bytes, and the record that holds them; offsets are of the item."""

    tensor: torch.Tensor
    record: Record


class Item:
    """The bytes of one item, as far as they are known. Stands where a file's `Reading` is expected."""

    is_verified = False  # its layout is read, not concluded: any writer's may be here

    def __init__(self, where: str, nbytes: int, read: Callable[[int, int], bytes]) -> None:
        self.where = where
        self.nbytes = nbytes
        self.compared: list[Extent] = []
        self._read = read

    def bytes(self, start: int, end: int) -> bytes:
        """A few of them."""
        if not 0 <= start <= end <= self.nbytes:
            raise CorruptCheckpointError(f"{self.where} is cut short or damaged.")
        return self._read(start, end)

    def compare(self, extents: Iterable[Extent]) -> None:
        """Told what torch's writer summed."""
        self.compared = list(extents)

    def check(self, *, but: str = "") -> None:
        """Compare all records with torch's sums, but the named one.

        Raises:
            CorruptCheckpointError: names the record that differs.
        """
        for extent in self.compared:
            is_summed = extent.crc and extent.what != f"record {but}"
            if is_summed and zlib.crc32(self.bytes(extent.start, extent.end)) != extent.crc:
                raise CorruptCheckpointError(f"{self.where}: {extent.what} differs from what was saved.")


def tensor_in(item: Item) -> Placed:
    """Where the tensor of an item lies; compares all but its bytes.

    Raises:
        CorruptCheckpointError: the item is damaged.
        ForeignCheckpointError: it is something else than one plain tensor that `torch.save` wrote.
    """
    archive = _archive(item)
    outline = outline_of(item, archive)  # type: ignore[arg-type] # what it asks for is here
    tensor: Any = None if outline is None else outline.state
    if outline is None or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise ForeignCheckpointError(f"{item.where} holds more than a plain tensor.")
    if (records := outline.records(tensor)) is None:
        raise ForeignCheckpointError(
            f"{item.where} holds a tensor that is not strided: it cannot be resharded."
        )
    (record,) = records
    if "byteorder" in archive.records and _content(item, archive.records["byteorder"]) != b"little":
        raise ForeignCheckpointError(f"{item.where} was saved on a machine of another byte order.")
    item.check(but=record.name)
    return Placed(tensor.detach(), record)


def load_object(item: Item, *, weights_only: bool) -> Any:
    """What an item that is no tensor holds.

    Raises:
        CorruptCheckpointError: it is damaged.
        ForeignCheckpointError: it holds what `weights_only` refuses.
    """
    archive = _archive(item)
    item.check()
    storages: dict[str, torch.UntypedStorage] = {}

    def storage(name: str) -> torch.UntypedStorage:
        if name not in storages:
            content = bytearray(_content(item, archive.records[name]))
            storages[name] = (
                torch.frombuffer(content, dtype=torch.uint8).clone().untyped_storage()
                if content
                else torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
            )
        return storages[name]

    return load_with(
        item,  # type: ignore[arg-type] # what it asks for is here
        archive,
        storage,
        map_location="cpu",
        weights_only=weights_only,
    )


def _archive(item: Item) -> Archive:
    if item.nbytes < 4 or item.bytes(0, 4) != b"PK\3\4":
        raise ForeignCheckpointError(
            f"{item.where} is no archive of torch.save: damaged, compressed or encrypted by an extension, or in "
            "another format, such as safetensors. Load it with the program that wrote it."
        )
    return read_archive(item)  # type: ignore[arg-type] # what it asks for is here


def _content(item: Item, record: Record) -> bytes:
    return item.bytes(record.start, record.end)
