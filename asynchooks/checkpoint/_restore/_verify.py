"""Whether the bytes at the store are the bytes that were saved, chunk by chunk.

Decides between whole and damaged; loads nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import find_committed, info_of, url_of
from asynchooks.checkpoint._restore._reading import Reading
from asynchooks.checkpoint._storage import nesting, open_folder, unlimited
from asynchooks.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["verify", "verify_in"]


def verify(
    url: str | os.PathLike[str],
    *,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> CheckpointInfo:
    """Read a checkpoint whole and compare sizes and checksums with its manifest. Blocks; loads nothing.

    `progress` is told how many more bytes were read and compared, on reading threads, one at a time; what it raises
    stops the reading.

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
    """Verify one committed checkpoint of a folder, of a sharded one every file."""
    folder = nesting(store).folder(manifest.name) if manifest.files else store
    files = [replace(manifest, name=file.name, chunks=file.chunks, files=()) for file in manifest.files]
    for file in files or [manifest]:
        reading = Reading(folder, file.name, file.nbytes, file, progress=progress)
        with reading.filling([], everything=True):
            pass
