"""From a store back to a state: which checkpoint, whether it is whole, and loading it without running code.

Decides what the resume takes, and which way a file is read. A file without a manifest (plain ``torch.save``,
MMEngine) loads too, and is named as unverified.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from asynchooks.checkpoint._catalog import (
    find_committed,
    info_of,
    read_manifest,
    url_of,
)
from asynchooks.checkpoint._evidence import misfit
from asynchooks.checkpoint._manifest import manifest_name
from asynchooks.checkpoint._restore._finding import newest
from asynchooks.checkpoint._restore._inplace import fill, plan_of
from asynchooks.checkpoint._restore._legacy import load_legacy
from asynchooks.checkpoint._restore._loading import (
    Headers,
    Storages,
    load,
    new_scratch,
    read_archive,
    refused,
)
from asynchooks.checkpoint._restore._outline import materialize, outline_of
from asynchooks.checkpoint._restore._reading import Reading
from asynchooks.checkpoint._restore._selection import check_keys, select
from asynchooks.checkpoint._restore._sharded import restore_sharded
from asynchooks.checkpoint._sharded._folder import Folder, is_sharded
from asynchooks.checkpoint._storage import nesting, open_folder, open_store, unlimited
from asynchooks.errors import (
    AsyncHooksError,
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Mapping

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest
    from asynchooks.checkpoint._restore._archive import Archive
    from asynchooks.checkpoint._restore._outline import Outline
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["find_readable", "restore", "restore_latest"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_REPLACED_TIMES = 10


def restore(
    url: str | os.PathLike[str],
    *,
    keys: Iterable[str] | None = None,
    into: dict[str, Any] | None = None,
    map_location: Any = None,
    weights_only: bool = True,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load one checkpoint, every byte that is read compared with its manifest. Blocks.

    Reads in parallel, straight into the tensors' memory. A file that has no manifest is loaded as it is, with a
    warning in the log that it is unverified; the checksums that torch wrote into it are compared.

    Args:
        url: the checkpoint, not its folder; see `restore_latest` for that.
        keys: read these entries alone, such as ``["state_dict.backbone", "meta"]``: the keys on the way to an entry,
            joined by dots. Selected are the entry of that name with all that is in it, and the entries whose names go
            on after it with a dot. The result has the same nested dicts, with what was selected. Only the chunks of
            the file that it needs are read and compared.
        into: a state of existing tensors, such as ``{"state_dict": model.state_dict()}``, that is filled in place
            and returned. Its entries must be those of the file (or of `keys`), its tensors of the same shapes and
            dtypes, on any device; what is no tensor is set. When a chunk turns out damaged, the tensors are left
            partly overwritten.
        map_location: as in `torch.load`; saved tensors are on the CPU. Not with `into`.
        weights_only: False lets the file run any code while it loads, and is logged: only for files that you
            trust.
        progress: as of `find_latest`.
        storage_options: fsspec's, as in `Checkpointer`.

    Raises:
        CheckpointNotFoundError: no such file.
        CorruptCheckpointError: it differs from what was saved; names the chunk.
        ForeignCheckpointError: it is no checkpoint, holds what ``weights_only=True`` refuses, or does not fit
            `into`: then nothing was changed.
        UnknownNameError: a key selects nothing.
    """
    store, name = open_folder(url, storage_options)
    return _restore(store, name, _Wish(check_keys(keys), into, map_location, weights_only), progress)


def restore_latest(
    url: str | os.PathLike[str] | Store,
    *,
    keys: Iterable[str] | None = None,
    into: dict[str, Any] | None = None,
    map_location: Any = None,
    weights_only: bool = True,
    passed_over: Callable[[CheckpointInfo, CheckpointError], None] | None = None,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[CheckpointInfo, dict[str, Any]] | None:
    """The newest committed checkpoint of a folder that is whole, and its content. Blocks; reads it once.

    Chooses as `find_latest` does, and falls back as loudly. With `keys`, only what they need is compared.

    Args:
        url: the folder.
        keys: as of `restore`.
        into: as of `restore`.
        map_location: as of `restore`.
        weights_only: as of `restore`.
        passed_over: as of `find_latest`.
        progress: as of `find_latest`.
        storage_options: fsspec's, as in `Checkpointer`.

    Returns:
        None, with a line in the log, when there is none.

    Raises:
        ForeignCheckpointError: it is whole, but holds what ``weights_only=True`` refuses, or does not fit `into`.
    """
    store = open_store(url, storage_options)
    wish = _Wish(check_keys(keys), into, map_location, weights_only)
    found = newest(
        store,
        lambda manifest: _restore_described(store, manifest.name, manifest, wish, progress),
        passed_over,
    )
    return None if found is None else (info_of(store, found[0]), found[1])


def find_readable(
    url: str | os.PathLike[str] | Store,
    *,
    besides: Collection[str] = (),
    map_location: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[CheckpointInfo, dict[str, Any] | None] | None:
    """As `restore_latest`, for many ranks: of a sharded checkpoint, each reads its part. Blocks.

    Args:
        url: the folder.
        besides: addresses of checkpoints that are known not to be whole.
        map_location: as of `restore`.
        storage_options: fsspec's, as in `Checkpointer`.

    Returns:
        The newest committed checkpoint, and its content; None for that of a sharded one, of which only the metadata
        was read. None when there is none.
    """
    store = open_store(url, storage_options)
    wish = _Wish(None, None, map_location, weights_only=True)

    def read(manifest: Manifest) -> dict[str, Any] | None:
        if manifest.files:
            Folder.of(nesting(store).folder(manifest.name), manifest).metadata()
            return None
        return _restore_described(store, manifest.name, manifest, wish, unlimited)

    found = newest(store, read, None, besides)
    return None if found is None else (info_of(store, found[0]), found[1])


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted of a checkpoint: the arguments of `restore`."""

    keys: tuple[str, ...] | None
    into: dict[str, Any] | None
    map_location: Any
    weights_only: bool

    def __post_init__(self) -> None:
        if self.into is not None and not isinstance(self.into, dict):
            raise TypeError(f"into is a dict of existing tensors, not a {type(self.into).__name__}")
        if self.into is not None and self.map_location is not None:
            raise TypeError("into says where its tensors are: leave map_location out")

    def of(self, state: Any, where: str) -> Any:
        """The wanted part of a whole state."""
        if not isinstance(state, dict):
            raise ForeignCheckpointError(
                f"{where} holds a {type(state).__name__}, not a dict of training state."
            )
        return state if self.keys is None else select(state, self.keys, where)


def _restore(store: Store, name: str, wish: _Wish, progress: Progress = unlimited) -> dict[str, Any]:
    for _ in range(_REPLACED_TIMES):
        manifest = _manifest_of(store, name)
        try:
            return _restore_described(store, name, manifest, wish, progress)
        except (CorruptCheckpointError, CheckpointNotFoundError):
            now = find_committed(store, name)
            if manifest is None or now is None or now.save_id == manifest.save_id:
                raise
            logger.info("%s was replaced while it was read: reading it again", url_of(store, name))
    raise CorruptCheckpointError(
        f"{url_of(store, name)} was replaced {_REPLACED_TIMES} times while it was read. Save to names of their own."
    )


def _restore_described(
    store: Store, name: str, manifest: Manifest | None, wish: _Wish, progress: Progress
) -> dict[str, Any]:
    where = url_of(store, name)
    sharded = manifest.files if manifest is not None else is_sharded(store, name)
    if manifest is None and not sharded:
        logger.warning("%s has no manifest: loaded unverified", where)
    if not wish.weights_only:
        logger.warning("%s is loaded with weights_only=False: it may run any code", where)
    try:
        if sharded:
            return restore_sharded(
                nesting(store).folder(name),
                manifest,
                keys=wish.keys,
                into=wish.into,
                map_location=wish.map_location,
                weights_only=wish.weights_only,
                progress=progress,
            )
        nbytes = _nbytes_of(store, name) if manifest is None else manifest.nbytes
        reading = Reading(store, name, nbytes, manifest, scratch=new_scratch, progress=progress)
        return _load(reading, wish)
    except (AsyncHooksError, torch.OutOfMemoryError):
        raise
    except RecursionError as error:
        raise ForeignCheckpointError(f"{where} is nested too deeply to be a checkpoint.") from error
    except Exception as error:  # what a hostile or damaged state makes of torch; the caller is told the file
        raise refused(where, error) from error


def _load(reading: Reading, wish: _Wish) -> dict[str, Any]:
    where = reading.where
    if reading.bytes(0, min(4, reading.nbytes)) != b"PK\3\4":
        state = load_legacy(reading, map_location=wish.map_location, weights_only=wish.weights_only)
        return _taken(wish.of(state, where), wish, where)
    archive = read_archive(reading)
    is_partial = wish.keys is not None or wish.into is not None
    outline = outline_of(reading, archive) if is_partial and wish.weights_only else None
    if outline is not None:
        return _load_part(reading, archive, outline, wish)
    state = load(reading, archive, map_location=wish.map_location, weights_only=wish.weights_only)
    return _taken(wish.of(state, where), wish, where)


def _load_part(reading: Reading, archive: Archive, outline: Outline, wish: _Wish) -> dict[str, Any]:
    """Read the bytes of what is wanted alone, where the state's outline says which they are."""
    part = wish.of(outline.state, reading.where)
    records = outline.records(part)
    if records is None:
        state = load(reading, archive, map_location=wish.map_location, weights_only=True)
        return _taken(wish.of(state, reading.where), wish, reading.where)
    if wish.into is not None:
        fill(plan_of(wish.into, part, reading.where), outline, reading, Headers(reading, archive, records))
        return wish.into
    storages = Storages(records)
    headers = Headers(reading, archive, records)
    with reading.filling([*storages.regions(), *headers.regions()], everything=False) as filling:
        made: dict[str, Any] = materialize(
            part, outline, lambda name: storages.wait(name, filling), wish.map_location
        )
    headers.check(reading.where)
    return made


def _taken(state: dict[str, Any], wish: _Wish, where: str) -> dict[str, Any]:
    """A loaded state, or the existing one that was filled from it."""
    if wish.into is None:
        return state
    plan_of(wish.into, state, where).copy()
    return wish.into


def _nbytes_of(store: Store, name: str) -> int:
    entry = store.entries().get(name)
    if entry is None:
        raise CheckpointNotFoundError(
            f"{url_of(store, name)} does not exist. A checkpoint is a file in its folder: check the URL."
        )
    return entry.nbytes


def _manifest_of(store: Store, name: str) -> Manifest | None:
    manifest = find_committed(store, name)
    if manifest is not None:
        return manifest
    described = read_manifest(store, manifest_name(name))
    if described is None:
        return None
    entries = nesting(store).folder(name).entries() if described.files else store.entries()
    if described.files and entries:
        raise CorruptCheckpointError(
            f"{url_of(store, name)} is not what its manifest describes (save {described.save_id}): "
            f"{misfit(described, entries) or 'its metadata was replaced'}. Load an older checkpoint."
        )
    entry = entries.get(name)
    if entry is None:
        raise CheckpointNotFoundError(f"{url_of(store, name)} does not exist; only its manifest is left.")
    raise CorruptCheckpointError(
        f"{url_of(store, name)} has {entry.nbytes} bytes, but its manifest describes {described.nbytes} "
        f"(save {described.save_id}). It was truncated or overwritten; load an older checkpoint."
    )
