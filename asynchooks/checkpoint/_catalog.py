"""Which checkpoints are committed in a folder: the one place that reads manifests for what they mean.

Decides between a manifest and the next one while data is being replaced. A checkpoint is committed when its
manifest exists and the data beside it has the size that it says; whether every byte is right is `_verify`'s
question.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynchooks.checkpoint._manifest import (
    MANIFEST_SUFFIX,
    MAX_MANIFEST_BYTES,
    Manifest,
    SavedAs,
    check_name,
    manifest_name,
    next_manifest_name,
    pointer_name,
)
from asynchooks.checkpoint._serialize import HEAD_BYTES, save_id_in
from asynchooks.checkpoint._storage import read_all
from asynchooks.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    UnsafePathError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from asynchooks.checkpoint._manifest import CheckpointInfo
    from asynchooks.checkpoint._storage import Entry, Store

__all__ = ["committed", "find_committed", "info_of", "pointed_name", "read_manifest", "url_of", "written_by"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Data and manifests that do not fit; equal when nothing has changed between two looks."""

    nbytes: int
    seen: tuple[object, ...]


def committed(
    store: Store, *, known: MutableMapping[str, tuple[Entry, Manifest]] | None = None
) -> list[Manifest]:
    """The manifests of all committed checkpoints of a folder, oldest first.

    A run may save, replace and prune meanwhile: what seems not to be committed is looked at again, until two looks
    in a row see the same. `known` remembers manifests between calls, so that pruning after every save does not
    read all of them again.
    """
    known = {} if known is None else known
    found = _look_until_still(store, known, None)
    for name in known.keys() - {manifest.name for manifest in found}:
        del known[name]
    return sorted(found, key=lambda manifest: (manifest.created_ns, manifest.step, manifest.save_id))


def find_committed(store: Store, name: str) -> Manifest | None:
    """The manifest of one committed checkpoint, or None."""
    found = _look_until_still(store, {}, name)
    return found[0] if found else None


def read_manifest(store: Store, filename: str) -> Manifest | None:
    """A manifest file; None when there is none.

    Raises:
        CorruptCheckpointError: it is damaged.
        ForeignCheckpointError: it is not of this kind, or newer.
    """
    try:
        text = read_all(store, filename, limit_bytes=MAX_MANIFEST_BYTES)
    except CheckpointNotFoundError:
        return None
    return Manifest.from_json(text, where=url_of(store, filename))


def written_by(store: Store, name: str) -> str | None:
    """The id of the save that wrote the file; None for a file of another kind, or none at all."""
    head = b""
    try:
        with closing(store.read(name, chunk_bytes=HEAD_BYTES)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                head += bytes(piece[: HEAD_BYTES - len(head)])
                if len(head) >= HEAD_BYTES:
                    break
    except CheckpointNotFoundError:
        return None
    return save_id_in(head)


def pointed_name(store: Store, pointer: SavedAs) -> str | None:
    """The name in this folder that a pointer file names; None when there is none."""
    try:
        line = read_all(store, pointer_name(pointer))
    except CheckpointNotFoundError:
        return None
    except CorruptCheckpointError as error:
        logger.warning("ignored: %s", error)
        return None
    text = line.decode("utf-8", "replace").strip()
    try:
        return check_name(text.rpartition("/")[2])
    except UnsafePathError:
        logger.warning("%s holds %r, which names no checkpoint", url_of(store, pointer_name(pointer)), text)
        return None


def info_of(store: Store, manifest: Manifest) -> CheckpointInfo:
    """The public description of a manifest in this folder."""
    return manifest.info(url_of(store, manifest.name))


def url_of(store: Store, name: str) -> str:
    """The full URL of a file in the folder."""
    return f"{store.url.rstrip('/')}/{name}"


def _look_until_still(
    store: Store, known: MutableMapping[str, tuple[Entry, Manifest]], only: str | None
) -> list[Manifest]:
    unfit_before: dict[str, _Unfit] = {}
    while True:
        entries = store.entries()
        found: list[Manifest] = []
        unfit: dict[str, _Unfit] = {}
        for filename in entries if only is None else [manifest_name(only)]:
            name = filename.removesuffix(MANIFEST_SUFFIX)
            if name == filename or name not in entries or filename not in entries:
                continue
            judged = _committed_at(store, entries, name, known)
            if isinstance(judged, Manifest):
                found.append(judged)
            else:
                unfit[name] = judged
        if unfit == unfit_before:
            break
        unfit_before = unfit
    for name, files in unfit.items():
        logger.warning(
            "%s is not a committed checkpoint: its %d bytes are not what its manifest describes",
            url_of(store, name),
            files.nbytes,
        )
    return found


def _committed_at(
    store: Store,
    entries: Mapping[str, Entry],
    name: str,
    known: MutableMapping[str, tuple[Entry, Manifest]],
) -> Manifest | _Unfit:
    replacing = next_manifest_name(name) in entries
    entry = entries[manifest_name(name)]
    if not replacing and name in known and known[name][0] == entry:
        return known[name][1]
    candidates = [_read_or_warn(store, manifest_name(name))]
    if replacing:
        candidates.append(_read_or_warn(store, next_manifest_name(name)))
    nbytes = entries[name].nbytes
    fitting = [manifest for manifest in candidates if manifest is not None and manifest.nbytes == nbytes]
    writer = None
    if replacing:  # read last: one of the manifests may have been replaced or removed since the listing
        writer = written_by(store, name)
        fitting = [manifest for manifest in fitting if manifest.save_id == writer]
    if not fitting or fitting[0].name != name:
        ids = [None if manifest is None else manifest.save_id for manifest in candidates]
        return _Unfit(entries[name].nbytes, (entries[name], entry, *ids, writer))
    if not replacing:
        known[name] = (entry, fitting[0])
    return fitting[0]


def _read_or_warn(store: Store, filename: str) -> Manifest | None:
    try:
        return read_manifest(store, filename)
    except (CorruptCheckpointError, ForeignCheckpointError) as error:
        logger.warning("ignored: %s", error)
        return None
