"""From a captured state to the bytes of a ``torch.save`` file, without copying a tensor.

torch decides the records (`torch.serialization._save`: the pickle and one record per storage), `_zip` where
they lie. The result is a list of views of the captured storages: nothing is written here, and nothing as
large as a tensor is copied.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch.serialization import _save

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._zip import lay_out

__all__ = ["HEAD_BYTES", "Serialized", "save_id_in", "serialize"]

HEAD_BYTES = 256
"""So many bytes at the start of a file tell which save wrote it."""

_PICKLE_PROTOCOL = 2  # what torch.save writes and the weights_only loader reads
_SAVE_ID_RECORD = ".data/asynchooks_save_id"


@dataclass(frozen=True, slots=True)
class Serialized:
    """A file's content; the tensors' records lie between the offsets `start` and `end`."""

    content: Content
    start: int
    end: int


def serialize(state: Any, save_id: str) -> Serialized:
    """Lay out the file that ``torch.load(path, weights_only=True)`` reads, of a captured state.

    Called on a worker thread. The save id stands in a record of its own at the front, where torch ignores it,
    so that a file says which save wrote it.
    """
    records = _Records()
    records.write_record(_SAVE_ID_RECORD, save_id, len(save_id))
    _save(state, records, pickle, _PICKLE_PROTOCOL, False)  # type: ignore[no-untyped-call]
    records.write_record("version", "3\n", 2)
    tensors = [index for index, (name, _) in enumerate(records.found) if name.startswith("data/")]
    buffers, offsets = lay_out(records.found)
    content = Content.of(*buffers)
    if not tensors:
        return Serialized(content, content.nbytes, content.nbytes)
    last = tensors[-1]
    return Serialized(content, offsets[tensors[0]], offsets[last] + records.found[last][1].nbytes)


def save_id_in(head: bytes) -> str | None:
    """The save id in a file's first `HEAD_BYTES` bytes; None when something else wrote the file."""
    marker = f"archive/{_SAVE_ID_RECORD}".encode()
    if head[:4] != b"PK\3\4" or head[30 : 30 + len(marker)] != marker:
        return None
    size = int.from_bytes(head[22:26], "little")
    start = 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return head[start : start + size].decode("ascii", "replace")


class _Records:
    """Stands where torch expects its zip writer, and keeps what it is given instead of writing it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, memoryview]] = []

    def write_record(self, name: str, data: bytes | str | torch.UntypedStorage, nbytes: int) -> None:
        self.found.append((name, _view(data)[:nbytes]))


def _view(data: bytes | str | torch.UntypedStorage) -> memoryview:
    if isinstance(data, str):
        return memoryview(data.encode())
    if isinstance(data, bytes):
        return memoryview(data)
    return torch.empty(0, dtype=torch.uint8).set_(data).numpy().data  # shares the storage's memory
