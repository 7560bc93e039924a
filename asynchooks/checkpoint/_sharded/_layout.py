"""The bytes of one rank's data file: one ``torch.save`` archive per tensor, as DCP's readers expect them.

Decides where in the file each item lies. Only the few bytes around a tensor are made here; its own are handed on
where they lie. A large tensor's bytes get the same place in a page of the file as they have in memory, so that a disk
takes them without a copy. Small ones are gathered, so that a model of a thousand biases is few buffers.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2, _rebuild_tensor_v3

from asynchooks.checkpoint._capture._storages import is_strided, is_wrapper
from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._serialize import TYPED, storage_class
from asynchooks.checkpoint._zip import ALIGNMENT, Archive
from asynchooks.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["lay_out", "plain", "starts_of"]

_PAGE_BYTES = 4096
_PAGED_BYTES = 2**18  # below it, a page of padding costs more than the copy
_GATHERED_BYTES = 2**14  # below it, a buffer of its own costs more than the copy
_PROTOCOL = 2


def plain(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whose bytes in memory are its bytes in the file; a copy only where it was a strided view.

    Raises:
        CaptureError: no part of such a tensor could be read alone.
    """
    if is_wrapper(tensor) or not is_strided(tensor):
        raise CaptureError(
            f"cannot write {key} as shards: a {type(tensor).__name__} of layout {tensor.layout}. A sharded "
            "checkpoint takes strided tensors; put this one into an object, or save in one file."
        )
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def lay_out(tensors: Iterable[torch.Tensor], objects: Sequence[bytes]) -> tuple[Content, list[int]]:
    """Lay a file out: the tensors, then the objects. Any thread.

    Args:
        tensors: on the CPU, contiguous, their bytes there: see `plain`.
        objects: pickled already.

    Returns:
        The file's bytes, and the length of each item in it, in that order; `starts_of` tells where they lie.
    """
    buffers: list[bytes | memoryview] = []
    gathered: list[bytes | memoryview] = []
    lengths: list[int] = []
    position = 0
    for tensor in tensors:
        view = _bytes_of(tensor)
        head, start = _head(tensor.dtype, tuple(tensor.shape), view.nbytes, _residue(view, position))
        tail = _tail(tensor.dtype, tuple(tensor.shape), view.nbytes, start)
        lengths.append(start + view.nbytes + len(tail))
        padding = -lengths[-1] % ALIGNMENT  # so that the next one's records are aligned in the file, too
        if view.nbytes < _GATHERED_BYTES:
            gathered += [head, view, tail, bytes(padding)]
        else:
            buffers += [b"".join([*gathered, head]), view]
            gathered = [tail, bytes(padding)]
        position += lengths[-1] + padding
    buffers.append(b"".join([*gathered, *objects]))
    return Content.of(*buffers), [*lengths, *map(len, objects)]


def starts_of(lengths: Sequence[int], *, ntensors: int) -> list[int]:
    """Where the items of a file start, the first `ntensors` of which are tensors."""
    starts: list[int] = []
    position = 0
    for number, length in enumerate(lengths):
        starts.append(position)
        position += length + (-length % ALIGNMENT if number < ntensors else 0)
    return starts


def _residue(view: memoryview, position: int) -> int | None:
    """Where in a page of the archive the tensor's bytes are to start; None where it does not matter."""
    if view.nbytes < _PAGED_BYTES:
        return None
    address = int(np.frombuffer(view, np.uint8).ctypes.data)
    return (address - position) % _PAGE_BYTES


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    if not tensor.nbytes:
        return memoryview(b"")
    array: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


@lru_cache(maxsize=4096)
def _head(dtype: torch.dtype, shape: tuple[int, ...], nbytes: int, residue: int | None) -> tuple[bytes, int]:
    """What stands before the tensor's bytes, and how long that is."""
    archive = _archive(dtype, shape, nbytes, residue)
    head = b"".join(archive.buffers[:-1] if nbytes else archive.buffers)
    return head, len(head)


@lru_cache(maxsize=4096)
def _tail(dtype: torch.dtype, shape: tuple[int, ...], nbytes: int, start: int) -> bytes:
    """What stands behind them."""
    archive = _archive(dtype, shape, nbytes, start % _PAGE_BYTES)
    count = len(archive.buffers)
    archive.finish()
    return b"".join(archive.buffers[count:])


def _archive(dtype: torch.dtype, shape: tuple[int, ...], nbytes: int, residue: int | None) -> Archive:
    """The records up to the tensor's own, of which only the length is there."""
    archive = Archive()
    archive.add("data.pkl", _pickled(dtype, shape))
    archive.add(".format_version", b"1")
    archive.add(".storage_alignment", str(ALIGNMENT).encode())
    archive.add("byteorder", sys.byteorder.encode())
    archive.add("version", b"3\n")
    nothing: Any = np.broadcast_to(np.zeros(1, np.uint8), (nbytes,))  # of that length, without memory
    if residue is None:
        archive.add("data/0", memoryview(nothing), summed=False)
    else:
        archive.add_at("data/0", memoryview(nothing), residue)
    return archive


class _Tensor:
    """Stands for a tensor over the whole of storage 0."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape


class _Storage:
    """Stands for storage 0."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.numel = int(np.prod(shape, dtype=np.int64))


class _Pickler(pickle.Pickler):
    """Writes what torch's pickler writes of one tensor."""

    def persistent_id(self, part: Any) -> tuple[Any, ...] | None:
        if type(part) is not _Storage:
            return None
        if part.dtype in TYPED:
            return "storage", storage_class(part.dtype), "0", "cpu", part.numel
        return "storage", torch.UntypedStorage, "0", "cpu", part.numel * part.dtype.itemsize

    def reducer_override(self, part: Any) -> Any:
        if type(part) is not _Tensor:
            return NotImplemented
        strides = torch.empty(part.shape, device="meta").stride()
        hooks: OrderedDict[Any, Any] = OrderedDict()
        whole = (_Storage(part.dtype, part.shape), 0, part.shape, strides, False, hooks)
        return (
            (_rebuild_tensor_v2, whole)
            if part.dtype in TYPED
            else (_rebuild_tensor_v3, (*whole, part.dtype, {}))
        )


@lru_cache(maxsize=4096)
def _pickled(dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=_PROTOCOL).dump(_Tensor(dtype, shape))
    return file.getvalue()
