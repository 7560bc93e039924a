"""Captured storages in one piece of memory, spaced as their records lie in the file.

Decides where in a slab each storage goes: with room before it for its record's header, so that a run of storages
is a run of the file, written by few large calls and without a copy. The key of a storage in the file is its
place in the slab; what is saved of the state does not change it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from asynchooks.checkpoint._zip import ALIGNMENT, HEADER_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from asynchooks.checkpoint._capture._staging import Staging

__all__ = ["Image", "Slot"]

_HEAP_BYTES = 2**20  # below it, memory from the heap is warm enough and a slab of its own too much


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one storage. `storage` is the copy; `start` counts from the image's first byte."""

    index: int
    start: int
    nbytes: int
    storage: torch.UntypedStorage


@dataclass(frozen=True, slots=True)
class Image:
    """Leased memory and the storages in it."""

    memory: npt.NDArray[np.uint8]
    slots: tuple[Slot, ...]
    by_storage: dict[int, Slot] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = {slot.storage._cdata: slot for slot in self.slots}  # noqa: SLF001 - what identifies a storage
        object.__setattr__(self, "by_storage", found)

    @classmethod
    def of(cls, sizes: Sequence[int], staging: Staging) -> Image:
        """Lease memory for storages of these sizes, in this order.

        Raises:
            CaptureError: there is no memory left.
        """
        starts, total = _layout(sizes)
        memory = staging.lease(total) if total >= _HEAP_BYTES else np.empty(total, np.uint8)
        slots = tuple(
            Slot(index, start, nbytes, _storage_over(memory[start : start + nbytes]))
            for index, (start, nbytes) in enumerate(zip(starts, sizes, strict=True))
        )
        return cls(memory, slots)

    def slot_of(self, storage: torch.UntypedStorage) -> Slot | None:
        """The place of a storage; None when it lies elsewhere."""
        return self.by_storage.get(storage._cdata)  # noqa: SLF001


def prepare(sizes: Sequence[int], staging: Staging) -> Callable[[], None] | None:
    """What makes memory for storages of these sizes warm, on any thread; None where there is nothing to make."""
    _, total = _layout(sizes)
    return partial(staging.prepare, total) if total >= _HEAP_BYTES else None


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each storage starts, and the bytes of all."""
    starts: list[int] = []
    position = -HEADER_ROOM  # the header of the first is not in the image: it ends where a page begins
    for nbytes in sizes:
        start = -(-(position + HEADER_ROOM) // ALIGNMENT) * ALIGNMENT
        starts.append(start)
        position = start + nbytes
    return starts, max(position, 0)


def _storage_over(memory: npt.NDArray[np.uint8]) -> torch.UntypedStorage:
    """A storage that shares the memory and keeps it leased."""
    return torch.from_numpy(memory).untyped_storage()
