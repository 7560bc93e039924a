"""Which checkpoints are committed in a folder: the one place that reads manifests for what they mean.

Decides between a manifest and the next one while data is being replaced. A checkpoint is committed when its
manifest exists and the data beside it has the size that it says, in a sharded one each of its files; whether every
byte is right is `_verify`'s question.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynchooks.checkpoint._evidence import is_data_of, misfit
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
from asynchooks.checkpoint._storage import NestingStore, nesting, read_all
from asynchooks.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    UnsafePathError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, MutableMapping

    from asynchooks.checkpoint._manifest import CheckpointInfo, Layout
    from asynchooks.checkpoint._storage import Entry, Store

__all__ = ["committed", "find_committed", "info_of", "pointed_name", "read_manifest", "url_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Data and manifests that do not fit; equal when nothing has changed between two looks."""

    reason: str
    seen: tuple[object, ...]


def committed(
    store: Store, *, known: MutableMapping[str, tuple[Entry, Manifest]] | None = None
) -> list[Manifest]:
    """The manifests of all committed checkpoints of a folder, oldest first.

    A run may save, replace and prune meanwhile: what seems not to be committed is looked at again, until two looks
    in a row see the same. `known` remembers manifests between calls, so that pruning after every save does not
    read all of them again, nor list the folder of each sharded checkpoint: of one that is known, and whose manifest
    is as it was, only that its folder is there is looked at, which takes one request for all of them.
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


class _Look:
    """A folder at one moment; what is in the folders inside is asked for as far as needed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries = store.entries()
        self._folders: Collection[str] | None = None

    def has_data(self, name: str, layout: Layout | None = None) -> bool:
        """Whether there is something at the name, of that layout or any."""
        if layout != "sharded" and name in self.entries:
            return True
        return layout != "single" and name in self.folders

    @property
    def folders(self) -> Collection[str]:
        """Listed once, and not at all where every manifest has its file."""
        if self._folders is None:
            self._folders = set(self.store.folders()) if isinstance(self.store, NestingStore) else ()
        return self._folders

    def entries_for(self, manifest: Manifest) -> Mapping[str, Entry]:
        """Where the manifest's files are to be; a sharded checkpoint's folder is listed now."""
        if not manifest.files:
            return self.entries
        if manifest.name not in self.folders:
            return {}
        return nesting(self.store).folder(manifest.name).entries()


def _look_until_still(
    store: Store, known: MutableMapping[str, tuple[Entry, Manifest]], only: str | None
) -> list[Manifest]:
    unfit_before: dict[str, _Unfit] = {}
    while True:
        look = _Look(store)
        found: list[Manifest] = []
        unfit: dict[str, _Unfit] = {}
        for filename in look.entries if only is None else [manifest_name(only)]:
            name = filename.removesuffix(MANIFEST_SUFFIX)
            if name == filename or filename not in look.entries:
                continue
            judged = _committed_at(look, name, known)
            if isinstance(judged, Manifest):
                found.append(judged)
            elif judged is not None:
                unfit[name] = judged
        if unfit == unfit_before:
            break
        unfit_before = unfit
    for name, misfit_of in unfit.items():
        logger.warning("%s is not a committed checkpoint: %s", url_of(store, name), misfit_of.reason)
    return found


def _committed_at(
    look: _Look, name: str, known: MutableMapping[str, tuple[Entry, Manifest]]
) -> Manifest | _Unfit | None:
    """The manifest of what is committed at the name; None when there is no data at all."""
    entry = look.entries[manifest_name(name)]
    replacing = next_manifest_name(name) in look.entries
    if not replacing and name in known and known[name][0] == entry:
        manifest = known[name][1]
        return manifest if look.has_data(name, manifest.layout) else None
    if not look.has_data(name):
        return None
    reason = "its manifest is damaged, or not of this kind"
    seen: list[object] = [entry, look.entries.get(name)]
    for filename in (manifest_name(name), next_manifest_name(name)) if replacing else (manifest_name(name),):
        candidate = _read_or_warn(look.store, filename)
        if candidate is None or candidate.name != name:
            seen.append(None)
            continue
        entries = look.entries_for(candidate)
        wrong = misfit(candidate, entries)
        # asked last: one of the manifests may have been replaced or removed since the listing
        if wrong is None and replacing and not is_data_of(look.store, candidate):
            wrong = "it is not what its manifest describes"
        if wrong is None:
            if not replacing:
                known[name] = (entry, candidate)
            return candidate
        reason = wrong
        seen += [candidate.save_id, wrong, *(entries.get(file.name) for file in candidate.files)]
    return _Unfit(reason, tuple(seen))


def _read_or_warn(store: Store, filename: str) -> Manifest | None:
    try:
        return read_manifest(store, filename)
    except (CorruptCheckpointError, ForeignCheckpointError) as error:
        logger.warning("ignored: %s", error)
        return None
