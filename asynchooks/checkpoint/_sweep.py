"""What killed runs leave behind, and its removal.

Decides what is provably a leftover: files under our temporary names whose writer is gone, and data beside a
next manifest that says that this very data was being saved or removed; and in a folder inside, data files that carry
a save id which no manifest lists and `.metadata` does not name. Everything else is left alone, also when it looks
useless: a file without a manifest may be somebody's copy.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import find_committed, read_manifest, url_of
from asynchooks.checkpoint._commit import publish
from asynchooks.checkpoint._evidence import is_data_of
from asynchooks.checkpoint._files import METADATA, save_id_of
from asynchooks.checkpoint._manifest import NEXT_SUFFIX, TEMPORARY, manifest_name, next_manifest_name
from asynchooks.checkpoint._storage import NestingStore, UploadingStore, nesting, open_store
from asynchooks.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    StorageError,
    UnsafePathError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Any

    from asynchooks.checkpoint._manifest import Manifest
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
    its next manifest goes. In the folders of sharded checkpoints (their files are returned as "folder/file"), also
    the data files of saves that were cut short or replaced; a folder that is empty then goes too. With `dry_run`,
    nothing is touched, and what would be removed is returned.

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
                _delete(store, leftover)
                logger.info("swept %s", url_of(store, leftover))
    removed += _sweep_uploads(store, limit_s, dry_run=dry_run, abort=abort_uploads)
    for name, folder in _folders(store):
        removed += [
            f"{name}/{file}"
            for file in _sweep_folder(store, name, folder, limit_s, gone=set(removed), dry_run=dry_run)
        ]
        uploads = _sweep_uploads(folder, limit_s, dry_run=dry_run, abort=abort_uploads)
        removed += [f"{upload} in {name}" for upload in uploads]
    return removed


def _folders(store: Store) -> Iterator[tuple[str, NestingStore]]:
    if not isinstance(store, NestingStore):
        return
    for name in sorted(store.folders()):
        with suppress(UnsafePathError):  # somebody's, such as .git
            yield name, store.folder(name)


def _sweep_folder(
    store: Store, name: str, folder: NestingStore, limit_s: float, *, gone: Collection[str], dry_run: bool
) -> list[str]:
    """Remove what killed saves left in one folder, and the folder if that was all; `gone` was swept before."""
    entries = folder.entries()
    old = sorted(
        file
        for file, entry in entries.items()
        if entry.modified_s is not None and entry.modified_s <= limit_s
    )
    data = [file for file in old if save_id_of(file) is not None]
    kept = _kept(store, name, folder, data, gone) if data else set()
    leftovers = [file for file in data if file not in kept]
    leftovers += [file for file in old if TEMPORARY.fullmatch(file) and not folder.is_being_written(file)]
    if not dry_run:
        for file in leftovers:
            folder.delete(file)
            logger.info("swept %s", url_of(folder, file))
        if leftovers or name + NEXT_SUFFIX in gone:
            folder.discard()
    return leftovers


def _kept(
    store: Store, name: str, folder: NestingStore, data: Iterable[str], gone: Collection[str]
) -> Collection[str]:
    """The data files that count: listed by a manifest that stands, or named by `.metadata` for plain readers."""
    try:
        if next_manifest_name(name) in gone:  # or would be: one of the two has been decided for
            standing = [find_committed(store, name) or read_manifest(store, manifest_name(name))]
        else:
            standing = [
                read_manifest(store, file) for file in (manifest_name(name), next_manifest_name(name))
            ]
    except (CorruptCheckpointError, ForeignCheckpointError):  # nobody can say what it lists
        return set(data)
    kept = {file.name for manifest in standing if manifest is not None for file in manifest.files}
    if f"{name}/{METADATA}" not in gone:
        ids = {save_id for file in data if (save_id := save_id_of(file)) is not None}
        named = _named_in_metadata(folder, ids)
        kept |= {file for file in data if save_id_of(file) in named}
    return kept


def _named_in_metadata(folder: NestingStore, save_ids: Collection[str]) -> set[str]:
    """Those that occur in `.metadata`, whatever else that is: it is only searched, and never unpickled."""
    found: set[str] = set()
    tail = b""
    with suppress(CheckpointNotFoundError):
        for piece in folder.read(METADATA):
            text = tail + bytes(piece)
            found |= {save_id for save_id in save_ids if save_id.encode() in text}
            tail = text[-64:]
    return found


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
        if manifest_name(data) not in entries:
            described = _described(store, name, data)
            if described is not None:
                yield f"{data}/{METADATA}" if described.files else data
            elif data in entries:
                return
        yield name


def _delete(store: Store, leftover: str) -> None:
    folder, _, file = leftover.rpartition("/")
    (nesting(store).folder(folder) if folder else store).delete(file)


def _described(store: Store, next_name: str, data: str) -> Manifest | None:
    """The next manifest, if the data beside it is the very data that it describes."""
    try:
        described = read_manifest(store, next_name)
    except (CorruptCheckpointError, ForeignCheckpointError):
        return None
    if described is None or described.name != data or not is_data_of(store, described):
        return None
    return described
