"""Which checkpoints a folder has, and which is the newest one that can be used.

Decides in what order they are tried, and which failure moves on to the next.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from asynchooks.checkpoint._catalog import committed, info_of, pointed_name, url_of
from asynchooks.checkpoint._restore._verify import verify_in
from asynchooks.checkpoint._storage import open_store, unlimited
from asynchooks.errors import CheckpointNotFoundError, CorruptCheckpointError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Mapping

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest, SavedAs
    from asynchooks.checkpoint._storage import Progress, Store
    from asynchooks.errors import CheckpointError

__all__ = ["find_latest", "list_checkpoints", "newest", "read_pointer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
    """The newest committed checkpoint that verifies. Blocks; reads it whole, and `restore_latest` loads it as well.

    One that does not verify is named in a warning with the reason, and the one before is tried. Checkpoints
    that were saved as best only come after all others, since they may lack what a resume needs.

    Args:
        url: the folder.
        passed_over: is told of each that does not verify, and why, in the order in which they are tried.
        progress: told how many more bytes were read and compared, on reading threads, one at a time; what it raises
            stops the reading.
        storage_options: fsspec's, as in `Checkpointer`.

    Returns:
        None, with a line in the log, when there is none.
    """
    store = open_store(url, storage_options)
    found = newest(store, lambda manifest: verify_in(store, manifest, progress), passed_over)
    return None if found is None else info_of(store, found[0])


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


def newest(
    store: Store,
    attempt: Callable[[Manifest], T],
    passed_over: Callable[[CheckpointInfo, CheckpointError], None] | None,
    besides: Collection[str] = (),
) -> tuple[Manifest, T] | None:
    """The newest checkpoint with which the attempt succeeds, and its result.

    What fails at the store is raised: falling back then would silently lose steps.
    """
    for manifest in _newest_first(store):
        if url_of(store, manifest.name) in besides:
            continue
        try:
            result = attempt(manifest)
        except (CorruptCheckpointError, CheckpointNotFoundError) as error:
            logger.warning(
                "step %d: falling back past %s: %s", manifest.step, url_of(store, manifest.name), error
            )
            if passed_over is not None:
                passed_over(info_of(store, manifest), error)
            continue
        logger.info("step %d: latest checkpoint is %s", manifest.step, url_of(store, manifest.name))
        return manifest, result
    logger.info("no committed checkpoint in %s", store.url)
    return None


def _newest_first(store: Store) -> Iterator[Manifest]:
    """Each committed checkpoint once.

    Lists the folder anew before each: what was the newest may be pruned by now, and what was saved meanwhile is newer
    than what is next in an old list.
    """
    seen: set[str] = set()
    while left := [manifest for manifest in committed(store) if manifest.save_id not in seen]:
        newest = max(left, key=lambda manifest: (manifest.saved_as != "best", manifest.created_ns))
        seen.add(newest.save_id)
        yield newest
