"""From a snapshot to the bytes of a ``torch.save`` file, without copying a tensor.

Decides the records, as torch's own writer does: the pickle, and one record per storage. Storages that lie in the
snapshot's image become runs of it. Nothing is written to a store here, and nothing as large as a tensor is copied.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch._utils import _rebuild_tensor_v2

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._zip import ALIGNMENT, Archive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynchooks.checkpoint._capture._capture import Snapshot
    from asynchooks.checkpoint._capture._image import Image, Slot

__all__ = ["HEAD_BYTES", "TYPED", "Serialized", "save_id_in", "serialize", "storage_class"]

HEAD_BYTES = 256
"""So many bytes at the start of a file tell which save wrote it."""

_PICKLE_PROTOCOL = 2  # what torch.save writes and the weights_only loader reads
TYPED = frozenset(
    {
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    }
)  # dtypes that files name by a storage class, and that all of torch's versions do
_SAVE_ID_RECORD = ".data/asynchooks_save_id"


@dataclass(frozen=True, slots=True)
class Serialized:
    """A file's content; the tensors' records lie between the offsets `start` and `end`."""

    content: Content
    start: int
    end: int


def serialize(snapshot: Snapshot, save_id: str) -> Serialized:
    """Lay out the file that ``torch.load(path, weights_only=True)`` reads.

    Called on a worker thread; reads no tensor's bytes, which may still be on their way. The save id stands in a
    record of its own at the front, where torch ignores it, so that a file says which save wrote it.
    """
    pickled = io.BytesIO()
    pickler = _Pickler(pickled, snapshot.image)
    pickler.dump(snapshot.outline)
    archive = Archive()
    archive.add(_SAVE_ID_RECORD, save_id.encode())
    archive.add("data.pkl", pickled.getvalue())
    archive.add(".format_version", b"1")
    archive.add(".storage_alignment", str(ALIGNMENT).encode())
    archive.add("byteorder", sys.byteorder.encode())
    archive.add("version", b"3\n")
    places = [
        archive.add_run(
            snapshot.image.memory.data, [(f"data/{slot.index}", slot.start, slot.nbytes) for slot in run]
        )
        for run in _runs(pickler.slots.values())
    ]
    places += [
        archive.add(f"data/{key}", _view(storage), summed=False) for key, storage in pickler.others.items()
    ]
    end = archive.nbytes
    archive.finish()
    return Serialized(Content.of(*archive.buffers), min(places, default=end), end)


def save_id_in(head: bytes) -> str | None:
    """The save id in a file's first `HEAD_BYTES` bytes; None when something else wrote the file."""
    marker = f"archive/{_SAVE_ID_RECORD}".encode()
    if head[:4] != b"PK\3\4" or head[30 : 30 + len(marker)] != marker:
        return None
    size = int.from_bytes(head[22:26], "little")
    start = 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return head[start : start + size].decode("ascii", "replace")


class _Pickler(pickle.Pickler):
    """Writes what torch's pickler writes, and keeps the storages: those of the image, and others, by their keys."""

    def __init__(self, file: io.BytesIO, image: Image) -> None:
        super().__init__(file, protocol=_PICKLE_PROTOCOL)
        self.slots: dict[int, Slot] = {}
        self.others: dict[str, torch.UntypedStorage] = {}
        self._image = image
        self._keys: dict[int, str] = {}

    def persistent_id(self, part: Any) -> tuple[Any, ...] | None:
        """Torch's description of a storage."""
        if type(part) is torch.TypedStorage:
            storage = part._untyped_storage  # noqa: SLF001 - as torch does
            kind = storage_class(part.dtype)
            return "storage", kind, self._key(storage), "cpu", storage.nbytes() // part.dtype.itemsize
        if type(part) is torch.UntypedStorage:
            return "storage", torch.UntypedStorage, self._key(part), "cpu", part.nbytes()
        return None

    def reducer_override(self, part: Any) -> Any:
        """What torch's own reduction gives for a plain tensor, at a third of its cost; all else is torch's."""
        if (
            type(part) is not torch.Tensor
            or part.__dict__
            or part.layout is not torch.strided
            or part.dtype not in TYPED
            or part.is_quantized
            or part.is_conj()
            or part.is_neg()
        ):
            return NotImplemented
        storage = torch.TypedStorage(wrap_storage=part.untyped_storage(), dtype=part.dtype, _internal=True)  # type: ignore[no-untyped-call]
        hooks: OrderedDict[Any, Any] = OrderedDict()
        place = (storage, part.storage_offset(), tuple(part.size()), part.stride(), part.requires_grad, hooks)
        return _rebuild_tensor_v2, place

    def _key(self, storage: torch.UntypedStorage) -> str:
        slot = self._image.slot_of(storage)
        if slot is not None:
            self.slots[slot.index] = slot
            return str(slot.index)
        key = self._keys.setdefault(storage._cdata, str(len(self._image.slots) + len(self._keys)))  # noqa: SLF001
        self.others[key] = storage
        return key


@cache
def storage_class(dtype: torch.dtype) -> Any:
    """``torch.FloatStorage`` and so on: how a file names a dtype."""
    empty = torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    typed = torch.TypedStorage(wrap_storage=empty, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
    return getattr(torch, typed._pickle_storage_type())  # type: ignore[no-untyped-call] # noqa: SLF001


def _runs(slots: Iterable[Slot]) -> list[list[Slot]]:
    """Slots that lie beside each other in the image, as lists."""
    ordered = sorted(slots, key=lambda slot: slot.index)
    runs = [ordered[:1]] if ordered else []
    for before, slot in pairwise(ordered):
        if slot.index == before.index + 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs


def _view(storage: torch.UntypedStorage) -> memoryview:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data  # shares the storage's memory
