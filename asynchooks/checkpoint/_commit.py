"""Making a checkpoint exist, and making it cease to exist.

Decides the order of the small writes around the data, so that at every instant each name is a whole
checkpoint or none, and a replaced one is the old or the new. Every function is one step; the order between
them is the checkpointer's.

A single file::

    check_layout -> (bytes at the store) announce -> (data visible) -> publish

A sharded checkpoint, whose data files have names that no reader knows until `.metadata` tells them::

    first rank: check_layout, replaced = settle -> all ranks: data files -> all have arrived ->
    first rank: announce -> put_metadata -> publish -> clear_replaced

`publish_sharded` is the last line. Until `put_metadata`, all readers see the old checkpoint; from then on plain
readers of DCP see the new one, and so do ours, by the next manifest.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import find_committed, read_manifest, url_of
from asynchooks.checkpoint._content import Content, checksum
from asynchooks.checkpoint._evidence import is_data_of
from asynchooks.checkpoint._files import METADATA, File, chunk_bytes_for, chunk_lengths
from asynchooks.checkpoint._manifest import manifest_name, next_manifest_name, pointer_name
from asynchooks.checkpoint._storage import nesting, nothing, unlimited
from asynchooks.errors import (
    CheckpointError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    StorageFullError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asynchooks.checkpoint._manifest import Layout, Manifest, SavedAs
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = [
    "announce",
    "check_layout",
    "clear_replaced",
    "delete_data",
    "delete_files",
    "give_up",
    "metadata_file",
    "point",
    "publish",
    "publish_sharded",
    "put_metadata",
    "remove",
    "settle",
    "withdraw",
]

logger = logging.getLogger(__name__)

_FEW = 16
_MANY, _PARALLEL_DELETES = 256, 64  # the files of many ranks, which all wait for it (benchmarks/scale.md)
_WORDS: Mapping[Layout, str] = {"single": "single-file", "sharded": "sharded"}


def announce(store: Store, manifest: Manifest) -> None:
    """Before the data: write the next manifest.

    Data that replaces a committed checkpoint is described from the moment it appears, and data that a kill
    leaves without a manifest is provably a leftover.
    """
    store.put(next_manifest_name(manifest.name), Content.of(manifest.to_json()))


def withdraw(store: Store, manifest: Manifest) -> bool:
    """After the data failed: remove the next manifest, unless only the answer was lost and the data is there.

    Returns whether it is removed: then a sharded save's data files count for nobody, and may be deleted.
    """
    if is_data_of(store, manifest):
        return False
    store.delete(next_manifest_name(manifest.name))
    return True


def publish(
    store: Store,
    manifest: Manifest,
    *,
    on_commit: Callable[[], None] = nothing,
    progress: Progress = unlimited,
) -> None:
    """After the data is durable: write the manifest. From here on the checkpoint is committed: `on_commit`.

    `progress` is told of 1 before it is visible and once it is; what it raises stops there.
    """
    content = Content.of(manifest.to_json())
    store.put(manifest_name(manifest.name), content, before_visible=partial(progress, 1))
    progress(1)
    on_commit()
    store.delete(next_manifest_name(manifest.name))


def check_layout(store: Store, name: str, layout: Layout) -> None:
    """Before any data: nothing of the other layout stands at the name.

    Raises:
        ForeignCheckpointError: it does. To replace it would need a moment at which neither is there.
    """
    try:
        found = read_manifest(store, manifest_name(name))
    except (CorruptCheckpointError, ForeignCheckpointError):  # will be replaced, as ever
        found = None
    there = "a file" if layout == "sharded" and name in store.entries() else None
    if found is not None and found.layout != layout:
        there = f"a {_WORDS[found.layout]} checkpoint (step {found.step})"
    if there is not None:
        raise ForeignCheckpointError(
            f"{url_of(store, name)} is {there}, which a {_WORDS[layout]} checkpoint cannot replace. "
            "Save under another name, or delete it first."
        )


def settle(store: Store, name: str, *, progress: Progress = unlimited) -> Manifest | None:
    """Before a sharded save: finish what a killed one of that name left half done, so that its place may be taken.

    Returns what is committed there now: what `publish_sharded` replaces. Data files of the killed one that do not
    count stay for `sweep`. `progress` as of `publish`.
    """
    found = find_committed(store, name)
    if found is not None and next_manifest_name(name) in store.entries():
        # else `announce` would take the description of what is there away
        publish(store, found, progress=progress)
    return found


def metadata_file(metadata: bytes, *, nfiles: int) -> File:
    """How the manifest describes `.metadata`; `nfiles` as in `chunk_bytes_for`."""
    chunk_bytes = chunk_bytes_for(len(metadata), nfiles=nfiles)
    lengths = chunk_lengths(len(metadata), chunk_bytes)
    return File.of(METADATA, checksum(Content.of(metadata), lengths), chunk_bytes)


def put_metadata(
    store: Store, manifest: Manifest, metadata: bytes, *, before_visible: Callable[[], None] = nothing
) -> None:
    """When all data files are durable: write `.metadata`, at which the sharded checkpoint takes its place.

    `before_visible` is called just before, and again when the write is tried again; what it raises stops it.
    """
    content = Content.of(metadata)
    if content.nbytes != manifest.metadata.nbytes:
        raise ValueError(f"{manifest.name}: the manifest describes another {METADATA}")
    nesting(store).folder(manifest.name).put(METADATA, content, before_visible=before_visible)


def clear_replaced(
    store: Store, manifest: Manifest, replaced: Manifest | None, *, progress: Progress = unlimited
) -> None:
    """After the manifest: delete the data files of the one that was replaced. What a kill leaves is for `sweep`."""
    kept = {file.name for file in manifest.files}
    gone = [file.name for file in replaced.files if file.name not in kept] if replaced is not None else []
    delete_files(nesting(store).folder(manifest.name), gone, progress=progress)


def publish_sharded(
    store: Store,
    manifest: Manifest,
    metadata: bytes,
    replaced: Manifest | None,
    *,
    before_visible: Callable[[], None] = nothing,
    on_commit: Callable[[], None] = nothing,
    progress: Progress = unlimited,
) -> None:
    """When the data files of all ranks are durable: make the checkpoint exist, in place of `replaced`.

    First rank only. When it raises before the manifest is there, `withdraw` says whether the data files may go.
    `progress` is told of 1 for each step and each deletion; what it raises stops in between.
    """
    steps = (
        partial(announce, store, manifest),
        partial(put_metadata, store, manifest, metadata, before_visible=before_visible),
        partial(publish, store, manifest, on_commit=on_commit, progress=progress),
        partial(clear_replaced, store, manifest, replaced, progress=progress),
    )
    for step in steps:
        progress(1)
        step()
    progress(1)


def give_up(store: Store, manifest: Manifest) -> None:
    """When a sharded save has failed in its commit: delete it, unless only an answer was lost and it is there."""
    try:
        if withdraw(store, manifest):
            delete_data(store, manifest)
    except CheckpointError as error:  # a store that is down; the failure on its way is the one to report
        logger.debug("could not withdraw the next manifest of %s: %s", manifest.name, error)


def delete_files(store: Store, names: Sequence[str], *, progress: Progress = unlimited) -> None:
    """Delete files of one folder, several at a time where the store likes that; `progress` hears of each as 1."""

    def delete(name: str) -> None:
        store.delete(name)
        progress(1)

    if store.parallel_reads == 1 or len(names) <= _FEW:
        for name in names:
            delete(name)
        return
    parallel = store.parallel_reads if len(names) < _MANY else _PARALLEL_DELETES
    with ThreadPoolExecutor(parallel, thread_name_prefix="asynchooks-delete") as threads:
        deletions = [threads.submit(delete, name) for name in names]
        try:
            for deletion in deletions:
                deletion.result()
        finally:
            threads.shutdown(cancel_futures=True)


def point(store: Store, pointer: SavedAs, name: str, *, progress: Progress = unlimited) -> None:
    """Replace a pointer file: one line, the checkpoint's absolute path or URL, as MMEngine's users know it.

    `progress` is told of 1 before it is visible; what it raises stops it.
    """
    content = Content.of(url_of(store, name).encode())
    store.put(pointer_name(pointer), content, before_visible=partial(progress, 1))


def remove(
    store: Store, manifest: Manifest, *, beside_others: bool = False, progress: Progress = unlimited
) -> bool:
    """Delete a committed checkpoint: its manifest before its data, so that a half-deleted one is none.

    Of a sharded one, `.metadata` goes before the files that it names, and then the folder if nothing else is in it.
    The next manifest stands while the data goes, so that `sweep` can prove what a kill leaves. A full store takes
    one only when something else is gone: a kill in between then leaves data that is nobody's.

    Args:
        store: the folder.
        manifest: the checkpoint.
        beside_others: another process may save this name: look before each deletion whether the data is still
            this save's. No store can look and delete at once, so that an instant remains.
        progress: told of 1 for each file of a sharded one; what it raises stops between two.

    Returns:
        Whether it is gone; False when another process replaced it meanwhile.
    """
    has_room = _announced(store, manifest)
    for delete in (partial(store.delete, manifest_name(manifest.name)), partial(_take_away, store, manifest)):
        if beside_others and not is_data_of(store, manifest):
            _withdraw_removal(store, manifest)
            return False
        delete()
        if not has_room:
            has_room = _announced(store, manifest)
    if manifest.files:
        delete_data(store, manifest, progress=progress)
    store.delete(next_manifest_name(manifest.name))
    return True


def delete_data(store: Store, manifest: Manifest, *, progress: Progress = unlimited) -> None:
    """Delete the files of a sharded save that no reader knows, and its folder if nothing else is in it.

    Of one that is being removed, or of one that failed and was withdrawn. Its names are its own: no other save's file
    goes.
    """
    folder = nesting(store).folder(manifest.name)
    names = [file.name for file in manifest.files if file.name != METADATA]
    delete_files(folder, names, progress=progress)
    folder.discard()


def _take_away(store: Store, manifest: Manifest) -> None:
    """What makes readers see the data: the file, or `.metadata`."""
    if manifest.files:
        nesting(store).folder(manifest.name).delete(METADATA)
    else:
        store.delete(manifest.name)


def _announced(store: Store, manifest: Manifest) -> bool:
    try:
        announce(store, manifest)
    except StorageFullError:
        return False
    return True


def _withdraw_removal(store: Store, manifest: Manifest) -> None:
    """Remove the next manifest of a removal that is given up, unless another save's stands there by now."""
    name = next_manifest_name(manifest.name)
    found = read_manifest(store, name)
    if found is not None and found.save_id == manifest.save_id:
        store.delete(name)
