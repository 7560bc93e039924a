"""The data file of one rank: items one after the other, each a ``torch.save`` archive of its own.

Decides where each item starts, so that tensors are aligned as in a file of their own, and what of it the first rank
has to be told: lengths alone, since the order is the plan's and the starts follow from them. Writes nothing.
"""

from __future__ import annotations

import io
import json
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from asynchooks.checkpoint._capture._image import Image
from asynchooks.checkpoint._capture._storages import is_strided
from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._files import File, file_from_document
from asynchooks.checkpoint._serialize import _Pickler
from asynchooks.checkpoint._zip import ALIGNMENT, Archive
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DataFile", "Written", "data_file", "data_name", "starts_of"]

_NO_IMAGE = Image(np.empty(0, np.uint8), ())


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file's content, and the length of each of its items, in order."""

    content: Content
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What one rank wrote: its file, and the lengths of the items in it. Travels through a rendezvous."""

    file: File
    lengths: tuple[int, ...]

    def encode(self) -> bytes:
        """Some two bytes for each item."""
        document = {"file": self.file.document(), "lengths": self.lengths}
        return zlib.compress(json.dumps(document, separators=(",", ":")).encode())

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Written:
        """What `encode` wrote.

        Raises:
            CorruptCheckpointError: it is something else; `where` says whose.
        """
        try:
            document = json.loads(zlib.decompress(data))
            return cls(file_from_document(document["file"]), tuple(map(int, document["lengths"])))
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            raise CorruptCheckpointError(f"{where} did not say what it wrote: {error}") from error


def data_name(rank: int, save_id: str, *, number: int = 0) -> str:
    """The name of a rank's data file; never used twice."""
    return f"__{rank}_{number}.{save_id}.distcp"


def starts_of(lengths: Iterable[int]) -> list[int]:
    """Where items of these lengths start in their file."""
    starts: list[int] = []
    end = 0
    for length in lengths:
        starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = starts[-1] + length
    return starts


def data_file(items: Sequence[torch.Tensor | bytes]) -> DataFile:
    """Lay out a file. Copies no tensor but those that are not contiguous; tensors are on the CPU. Any thread.

    Bytes are objects that are pickled already, as ``torch.save`` does it.
    """
    buffers: list[memoryview] = []
    lengths: list[int] = []
    end = 0
    for item in items:
        padding = -end % ALIGNMENT
        if padding:
            buffers.append(memoryview(bytes(padding)))
        parts = [memoryview(item)] if isinstance(item, bytes) else _tensor_parts(item)
        length = sum(part.nbytes for part in parts)
        buffers += parts
        lengths.append(length)
        end += padding + length
    return DataFile(Content.of(*buffers), tuple(lengths))


def _tensor_parts(tensor: torch.Tensor) -> list[memoryview]:
    """The archive that holds a tensor and no more of its storage than is its own."""
    whole = tensor.detach()
    if type(whole) is not torch.Tensor or not is_strided(whole):
        buffer = io.BytesIO()
        torch.save(whole, buffer)
        return [buffer.getbuffer()]
    whole = whole.resolve_conj().resolve_neg().contiguous()
    data = _bytes_of(whole)
    alone = torch.empty(0, dtype=whole.dtype)
    if data.nbytes:
        storage = torch.from_numpy(data).untyped_storage()
        alone.set_(storage, 0, whole.size(), whole.stride())
    else:
        alone = alone.reshape(whole.size())
    pickled = io.BytesIO()
    _Pickler(pickled, _NO_IMAGE).dump(alone)
    archive = Archive()
    archive.add("data.pkl", pickled.getvalue())
    archive.add("byteorder", sys.byteorder.encode())
    archive.add("version", b"3\n")
    archive.add("data/0", data.data, summed=False)
    archive.finish()
    return archive.buffers


def _bytes_of(tensor: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
    start = tensor.storage_offset() * tensor.element_size()
    return storage[start : start + tensor.nbytes]
