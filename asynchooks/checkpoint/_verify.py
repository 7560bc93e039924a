"""Whether the bytes at the store are the bytes that were saved, chunk by chunk.

Decides between whole and damaged; loads nothing. Reading and summing happen in one pass in chunks that
release the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asynchooks.checkpoint._catalog import find_committed, info_of, url_of
from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._storage import open_folder, unlimited
from asynchooks.errors import CheckpointNotFoundError, CorruptCheckpointError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from typing import Any

    import numpy.typing as npt

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["read_verified", "verify", "verify_in"]


def verify(
    url: str | os.PathLike[str],
    *,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> CheckpointInfo:
    """Read a checkpoint whole and compare sizes and checksums with its manifest. Blocks; loads nothing.

    `progress` is told how many more bytes were read and compared; what it raises stops the reading.

    Raises:
        CheckpointNotFoundError: there is no committed checkpoint of that name.
        CorruptCheckpointError: names the first chunk that differs.
    """
    store, name = open_folder(url, storage_options)
    manifest = find_committed(store, name)
    if manifest is None:
        raise CheckpointNotFoundError(
            f"{url_of(store, name)} is no committed checkpoint: there is no manifest that fits it beside it."
        )
    verify_in(store, manifest, progress)
    return info_of(store, manifest)


def verify_in(store: Store, manifest: Manifest, progress: Progress = unlimited) -> None:
    """Verify one committed checkpoint of a folder."""
    chunk = np.empty(max((chunk.nbytes for chunk in manifest.chunks), default=0), np.uint8)
    for nbytes in _checked_chunks(store, manifest, lambda _offset, nbytes: chunk[:nbytes]):
        progress(nbytes)


def read_verified(store: Store, manifest: Manifest) -> npt.NDArray[np.uint8]:
    """The checkpoint's bytes, verified. Needs memory for all of them."""
    data = np.empty(manifest.nbytes, np.uint8)
    for _ in _checked_chunks(store, manifest, lambda offset, nbytes: data[offset : offset + nbytes]):
        pass
    return data


def _checked_chunks(store: Store, manifest: Manifest, place: Any) -> Iterator[int]:
    """Fill the array that `place(offset, nbytes)` gives with each chunk in turn, compare, and yield its length."""
    reader = _Reader(store, manifest.name)
    offset = 0
    try:
        for index, chunk in enumerate(manifest.chunks):
            target = place(offset, chunk.nbytes)
            filled = reader.fill(target)
            if filled != chunk.nbytes:
                raise CorruptCheckpointError(
                    f"{url_of(store, manifest.name)} ends at byte {offset + filled}, but {manifest.nbytes} were "
                    f"saved (save {manifest.save_id}). It was truncated or overwritten; load an older checkpoint."
                )
            if digest([target.data]) != chunk.digest:
                raise CorruptCheckpointError(
                    f"{url_of(store, manifest.name)}: chunk {index}, bytes {offset} to {offset + chunk.nbytes}, "
                    f"differs from what was saved (save {manifest.save_id}). Load an older checkpoint."
                )
            offset += chunk.nbytes
            yield chunk.nbytes
        if reader.fill(np.empty(1, np.uint8)):
            raise CorruptCheckpointError(
                f"{url_of(store, manifest.name)} is longer than the {manifest.nbytes} bytes that were saved."
            )
    finally:
        reader.close()


class _Reader:
    """Fills arrays from a store's stream, whatever the length of its pieces."""

    def __init__(self, store: Store, name: str) -> None:
        self._pieces: Any = store.read(name)
        self._rest = memoryview(b"")

    def fill(self, target: npt.NDArray[np.uint8]) -> int:
        filled = 0
        while filled < target.nbytes:
            if not self._rest.nbytes:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece).cast("B")
            taken = min(self._rest.nbytes, target.nbytes - filled)
            np.copyto(target[filled : filled + taken], np.frombuffer(self._rest[:taken], np.uint8))
            self._rest = self._rest[taken:]
            filled += taken
        return filled

    def close(self) -> None:
        self._rest = memoryview(b"")
        self._pieces.close()
