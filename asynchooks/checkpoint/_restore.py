"""From a store back to a state: which checkpoint, whether it is whole, and loading it without running code.

Decides what the resume takes. A file without a manifest (plain ``torch.save``, MMEngine) loads too, and is
named as unverified.
"""

from __future__ import annotations

import io
import logging
import pickle
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch

from asynchooks.checkpoint._catalog import (
    committed,
    find_committed,
    info_of,
    pointed_name,
    read_manifest,
    url_of,
)
from asynchooks.checkpoint._manifest import manifest_name
from asynchooks.checkpoint._storage import open_folder, open_store, read_all, unlimited
from asynchooks.checkpoint._verify import read_verified, verify_in
from asynchooks.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    StorageError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest, SavedAs
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["find_latest", "list_checkpoints", "read_pointer", "restore"]

logger = logging.getLogger(__name__)


def restore(
    url: str | os.PathLike[str],
    *,
    map_location: Any = None,
    weights_only: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load one checkpoint, after its size and checksums were compared with its manifest. Blocks.

    A file that has no manifest is loaded as it is, with a warning in the log that it is unverified.

    Args: url: the checkpoint, not its folder; see `find_latest` for that. map_location: as in `torch.load`;
        saved tensors are on the CPU. weights_only: False lets the file run any code while it loads, and is
        logged: only for files that you trust. storage_options: fsspec's, as in `Checkpointer`.

    Raises:
        CheckpointNotFoundError: no such file.
        CorruptCheckpointError: it differs from what was saved; names the chunk.
        ForeignCheckpointError: it is no checkpoint, or holds what ``weights_only=True`` refuses.
    """
    store, name = open_folder(url, storage_options)
    where = url_of(store, name)
    manifest = _manifest_of(store, name)
    data = (
        np.frombuffer(read_all(store, name), np.uint8) if manifest is None else read_verified(store, manifest)
    )
    if manifest is None:
        logger.warning("%s has no manifest: loaded unverified", where)
    if not weights_only:
        logger.warning("%s is loaded with weights_only=False: it may run any code", where)
    return _load(
        data, where, map_location=map_location, weights_only=weights_only, verified=manifest is not None
    )


def list_checkpoints(
    url: str | os.PathLike[str] | Store, *, storage_options: Mapping[str, Any] | None = None
) -> list[CheckpointInfo]:
    """The committed checkpoints of a folder, oldest first. Blocks; reads manifests and sizes only."""
    store = open_store(url, storage_options)
    return [info_of(store, manifest) for manifest in committed(store)]


def find_latest(
    url: str | os.PathLike[str] | Store,
    *,
    passed_over: Callable[[CheckpointInfo, CheckpointError], None] | None = None,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> CheckpointInfo | None:
    """The newest committed checkpoint that verifies: what ``resume="auto"`` takes. Blocks; reads it whole.

    One that does not verify is named in a warning with the reason, and the one before is tried. Checkpoints
    that were saved as best only come after all others, since they may lack what a resume needs.

    Args:
        url: the folder.
        passed_over: is told of each that does not verify, and why, in the order in which they are tried.
        progress: told how many more bytes were read and compared; what it raises stops the reading.
        storage_options: fsspec's, as in `Checkpointer`.

    Returns:
        None, with a line in the log, when there is none.
    """
    store = open_store(url, storage_options)
    newest_first = sorted(
        committed(store),
        key=lambda manifest: (manifest.saved_as != "best", manifest.created_ns),
        reverse=True,
    )
    for manifest in newest_first:
        try:
            verify_in(store, manifest, progress)
        except StorageError:
            raise  # the store is ill, not the checkpoint: falling back would silently lose steps
        except CheckpointError as error:
            logger.warning(
                "step %d: falling back past %s: %s", manifest.step, url_of(store, manifest.name), error
            )
            if passed_over is not None:
                passed_over(info_of(store, manifest), error)
            continue
        logger.info("step %d: latest checkpoint is %s", manifest.step, url_of(store, manifest.name))
        return info_of(store, manifest)
    logger.info("no committed checkpoint in %s", store.url)
    return None


def read_pointer(
    url: str | os.PathLike[str] | Store,
    pointer: SavedAs = "last",
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> str | None:
    """The URL of the checkpoint in the folder `url` that its pointer file names; None without a pointer."""
    store = open_store(url, storage_options)
    name = pointed_name(store, pointer)
    return None if name is None else url_of(store, name)


def _manifest_of(store: Store, name: str) -> Manifest | None:
    manifest = find_committed(store, name)
    if manifest is not None:
        return manifest
    described = read_manifest(store, manifest_name(name))
    if described is None:
        return None
    entry = store.entries().get(name)
    if entry is None:
        raise CheckpointNotFoundError(f"{url_of(store, name)} does not exist; only its manifest is left.")
    raise CorruptCheckpointError(
        f"{url_of(store, name)} has {entry.nbytes} bytes, but its manifest describes {described.nbytes} "
        f"(save {described.save_id}). It was truncated or overwritten; load an older checkpoint."
    )


def _load(
    data: npt.NDArray[np.uint8], where: str, *, map_location: Any, weights_only: bool, verified: bool
) -> dict[str, Any]:
    is_archive = data[:4].tobytes() == b"PK\3\4"
    try:
        loaded = torch.load(
            cast("IO[bytes]", _ArrayFile(data)), map_location=map_location, weights_only=weights_only
        )
    except pickle.UnpicklingError as error:
        raise _refused(where, error, is_archive=is_archive) from error
    except (
        Exception
    ) as error:  # a damaged pickle fails anywhere in torch's loader; the caller is told the file
        if verified:
            raise  # the bytes are what was saved: this is a wrong map_location, too little memory, or a bug
        kind = CorruptCheckpointError if is_archive else ForeignCheckpointError
        what = "is truncated or damaged" if is_archive else "is no checkpoint"
        raise kind(f"{where} {what}: torch could not load it ({_brief(error)}).") from error
    if not isinstance(loaded, dict):
        raise ForeignCheckpointError(
            f"{where} holds a {type(loaded).__name__}, not a dict of training state."
        )
    return loaded


def _refused(where: str, error: pickle.UnpicklingError, *, is_archive: bool) -> CheckpointError:
    if not is_archive:
        return ForeignCheckpointError(f"{where} is no checkpoint: torch could not load it ({_brief(error)}).")
    return ForeignCheckpointError(
        f"{where} holds more than tensors and plain containers ({_brief(error)}): loading it would run code. "
        "Pass weights_only=False if you trust the file."
    )


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next(
        (line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else ""
    )
    return f"{type(error).__name__}: {named[:300]}"


class _ArrayFile(io.RawIOBase):
    """A file over bytes in memory, read without copying all of them."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        super().__init__()
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._data.nbytes}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = np.frombuffer(buffer, np.uint8)
        piece = self._data[self._position : self._position + view.nbytes]
        np.copyto(view[: piece.nbytes], piece)
        self._position += piece.nbytes
        return int(piece.nbytes)
