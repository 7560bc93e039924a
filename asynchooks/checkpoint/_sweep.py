"""What killed runs leave behind, and its removal.

Decides what is provably a leftover: files under our temporary names whose writer is gone, and data beside a
next manifest that says that this very data was being saved or removed. Everything else is left alone, also
when it looks useless: a file without a manifest may be somebody's copy.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import find_committed, read_manifest, url_of
from asynchooks.checkpoint._commit import publish
from asynchooks.checkpoint._evidence import is_data_of
from asynchooks.checkpoint._manifest import NEXT_SUFFIX, TEMPORARY, manifest_name
from asynchooks.checkpoint._storage import UploadingStore, open_store
from asynchooks.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    StorageError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from typing import Any

    from asynchooks.checkpoint._storage import Entry, Store

__all__ = ["sweep"]

logger = logging.getLogger(__name__)

_OLD_S = 24 * 3600.0


def sweep(
    url: str | os.PathLike[str] | Store,
    *,
    older_than_s: float = _OLD_S,
    dry_run: bool = False,
    abort_uploads: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Remove leftovers of killed runs from a folder, and return their names. Blocks.

    Touched are only files last written more than `older_than_s` ago (one day: longer than any save in flight):
    temporary files of this package that no process holds, and what a save or a removal that was cut short left
    beside its next manifest. A replacement that was cut short after its data was durable is finished, and only
    its next manifest goes. With `dry_run`, nothing is touched, and what would be removed is returned.

    Unfinished multipart uploads into an S3 folder are no files, and cost money. Nothing in them proves whose they
    are, so they are told in a warning, and aborted (in the return value: "upload of" a name) only with
    `abort_uploads`, and when they were begun more than `older_than_s` ago. Both need botocore. A lifecycle rule of
    the bucket (AbortIncompleteMultipartUpload) does it by itself.

    Raises:
        ConfigError: `abort_uploads` where botocore is missing.
        StorageError: the store failed or refused.
    """
    store = open_store(url, storage_options)
    entries = store.entries()
    limit_s = time.time() - older_than_s
    removed: list[str] = []
    for name in sorted(entries):
        modified_s = entries[name].modified_s
        if modified_s is None or modified_s > limit_s:
            continue
        for leftover in _leftovers(store, entries, name, dry_run=dry_run):
            removed.append(leftover)
            if not dry_run:
                store.delete(leftover)
                logger.info("swept %s", url_of(store, leftover))
    removed += _sweep_uploads(store, limit_s, dry_run=dry_run, abort=abort_uploads)
    return removed


def _sweep_uploads(store: Store, limit_s: float, *, dry_run: bool, abort: bool) -> list[str]:
    if not isinstance(store, UploadingStore):
        return []
    try:
        uploads = store.unfinished_uploads(needed=abort)
    except (StorageError, CheckpointNotFoundError) as error:
        if abort:
            raise
        logger.debug("%s", error)  # a server, or a policy, that has files and no list of uploads
        return []
    old = [upload for upload in uploads if upload.started_s <= limit_s]
    names = [f"upload of {upload.name}" for upload in old]
    if abort:
        for upload in old if not dry_run else ():
            store.abort_upload(upload)
            logger.info("aborted the upload of %s", url_of(store, upload.name))
        return names
    if old:
        logger.warning(
            "%s: %d unfinished uploads, of %s, cost storage. If nobody goes on with them, sweep with "
            "abort_uploads=True, or give the bucket a lifecycle rule (AbortIncompleteMultipartUpload)",
            store.url,
            len(old),
            ", ".join(sorted({upload.name for upload in old})),
        )
    return []


def _leftovers(store: Store, entries: Mapping[str, Entry], name: str, *, dry_run: bool) -> Iterator[str]:
    """What to delete because of one old file, in the order in which to delete it."""
    if TEMPORARY.fullmatch(name):
        if not store.is_being_written(name):
            yield name
    elif name.endswith(NEXT_SUFFIX):
        data = name.removesuffix(NEXT_SUFFIX)
        committed = find_committed(store, data)
        if committed is not None:
            if not dry_run:
                publish(store, committed)  # writes the manifest of what is there
            yield name
            return
        if data in entries and manifest_name(data) not in entries:
            if not _is_described(store, name, data):
                return
            yield data
        yield name


def _is_described(store: Store, next_name: str, data: str) -> bool:
    try:
        described = read_manifest(store, next_name)
    except (CorruptCheckpointError, ForeignCheckpointError):
        return False
    return described is not None and described.name == data and is_data_of(store, described)
