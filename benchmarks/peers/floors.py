"""What the machine can do at best: one warm copy of the state, one raw write of the same bytes, and nothing."""

from __future__ import annotations

import mmap
import os
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.contender import Contender, Pending, Place
from peers.workload import named_tensors

__all__ = ["Floor", "NoSave"]

_PAGE = 4096
_WRITE_BYTES = 32 * 2**20
_PART_BYTES = 8 * 2**20
_PARTS_IN_FLIGHT = 8


class NoSave(Contender):
    """Nothing for a second: what the machine's noise looks like in this table."""

    syncs = True
    lacks = "everything"

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        timer = threading.Timer(1.0, pending.end)
        timer.daemon = True
        timer.start()
        return pending

    def load(self, step: int, like: dict[str, Any]) -> None:
        return None


class Floor(Contender):
    """One copy into a warm slab, then its bytes as they are: O_DIRECT and fdatasync, or obstore's multipart put."""

    syncs = True
    lacks = "format, manifest, checksums"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._slab: mmap.mmap | torch.Tensor = mmap.mmap(-1, _PAGE)
        self._sources: list[torch.Tensor] = []
        self._views: list[torch.Tensor] = []
        self._client: Any = None

    def open(self, state: dict[str, Any]) -> None:
        self._sources = [tensor for _, tensor in named_tensors(state)]
        offsets = [0]
        for tensor in self._sources:
            offsets.append(offsets[-1] + -(-tensor.nbytes // 64) * 64)
        nbytes = -(-offsets[-1] // _PAGE) * _PAGE
        if any(tensor.is_cuda for tensor in self._sources):
            flat = self._slab = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        else:
            self._slab = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(OSError):  # a kernel without huge pages
                self._slab.madvise(mmap.MADV_HUGEPAGE)
            flat = torch.from_numpy(np.frombuffer(self._slab, np.uint8))
        for tensor, start in zip(self._sources, offsets, strict=False):
            piece = flat[start : start + tensor.nbytes]
            self._views.append(piece.view(tensor.dtype).view(tensor.shape))
        self._copy()
        if self.place.is_remote:
            import obstore.store

            self._client = obstore.store.from_url(self.place.url, client_options={"allow_http": True})

    def save(self, state: dict[str, Any], step: int) -> Pending:
        start = time.perf_counter()
        self._copy()
        pending = Pending()
        pending.parts["memcpy_s"] = time.perf_counter() - start
        threading.Thread(target=partial(self._persist, step, pending), daemon=True).start()
        return pending

    def load(self, step: int, like: dict[str, Any]) -> None:
        return None

    def close(self) -> None:
        self._views.clear()

    def _copy(self) -> None:
        torch._foreach_copy_(self._views, self._sources, non_blocking=True)
        if self._sources[0].is_cuda:
            torch.cuda.synchronize()

    def _persist(self, step: int, pending: Pending) -> None:
        start = time.perf_counter()
        data = self._slab.numpy().data if isinstance(self._slab, torch.Tensor) else memoryview(self._slab)
        try:
            if self.place.is_remote:
                import obstore

                obstore.put(
                    self._client,
                    self.name_of(step),
                    (data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)),
                    use_multipart=True,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_IN_FLIGHT,
                )
            else:
                _write(data, Path(self.place.at(self.name_of(step))))
        except Exception as error:  # noqa: BLE001 - told by the training thread
            pending.end(error)
        else:
            pending.parts["write_s"] = time.perf_counter() - start
            pending.end()


def _write(data: memoryview, path: Path) -> None:
    """Whole pages past the page cache, synced, renamed."""
    temporary = path.with_suffix(".tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        descriptor = os.open(temporary, flags | os.O_DIRECT)
    except OSError:  # tmpfs, before Linux 6.6
        descriptor = os.open(temporary, flags)
    try:
        at = 0
        while at < len(data):
            at += os.pwrite(descriptor, data[at : at + _WRITE_BYTES], at)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
