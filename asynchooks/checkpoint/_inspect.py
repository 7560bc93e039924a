"""Everything that lies in a checkpoint folder: what is committed, and for each other file why it is not.

Decides between unfinished (saves in flight, and what killed ones left: `sweep` knows which), damaged, and foreign. It
changes nothing and reads no data: whether every byte is right is `_verify`'s question.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from asynchooks.checkpoint._catalog import committed, info_of, pointed_name, read_manifest
from asynchooks.checkpoint._evidence import misfit
from asynchooks.checkpoint._files import METADATA, save_id_of
from asynchooks.checkpoint._manifest import (
    MANIFEST_SUFFIX,
    NEXT_SUFFIX,
    POINTERS,
    TEMPORARY,
    manifest_name,
    next_manifest_name,
)
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.checkpoint._storage import Entry, NestingStore, open_store
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError, UnsafePathError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from typing import Any

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest, SavedAs
    from asynchooks.checkpoint._storage import Store

__all__ = ["FolderContents", "OtherFile", "inspect_folder"]

_LOOKS = 5
_Kind: TypeAlias = Literal["unfinished", "damaged", "foreign"]


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file of the folder that belongs to no committed checkpoint, or that contradicts one.

    Attributes:
        name: its name; of a file in a folder inside "folder/file", of a whole folder "folder/".
        nbytes: its length.
        modified: when it was last written (UTC); None where the store has no times.
        kind: "unfinished": a save or a removal that is under way or was cut short, which `sweep` finishes or removes
            once it is old; "damaged": it was a checkpoint, its manifest or its pointer, and no longer is; "foreign":
            somebody else's, left alone.
        reason: why it is no checkpoint, for a person.
    """

    name: str
    nbytes: int
    modified: datetime | None
    kind: _Kind
    reason: str


@dataclass(frozen=True, slots=True)
class FolderContents:
    """A folder at one moment.

    Attributes:
        url: the folder, without credentials.
        checkpoints: the committed ones, oldest first.
        pointers: the name that each pointer file names; a pointer that is not there is missing.
        others: all files that are neither of a committed checkpoint nor a good pointer nor the owner file, by name.
        nbytes: the length of all files together, with those in the folders of checkpoints.
    """

    url: str
    checkpoints: tuple[CheckpointInfo, ...]
    pointers: Mapping[SavedAs, str]
    others: tuple[OtherFile, ...]
    nbytes: int


def inspect_folder(
    url: str | os.PathLike[str] | Store, *, storage_options: Mapping[str, Any] | None = None
) -> FolderContents:
    """List a folder and say what each file in it is. Blocks; reads manifests, pointers and sizes only.

    A run may save and prune meanwhile: damage is reported only when two looks in a row agree on it.

    Raises:
        CheckpointNotFoundError: what must exist beforehand, such as a bucket, does not. A folder that does not exist
            is empty.
        StorageError: the store failed or refused.
    """
    store = open_store(url, storage_options)
    contents, seen = _look(store), set[OtherFile]()
    for _ in range(_LOOKS):
        if (damaged := _damaged(contents)) <= seen:
            break
        contents, seen = _look(store), damaged
    return contents


def _damaged(contents: FolderContents) -> set[OtherFile]:
    return {other for other in contents.others if other.kind == "damaged"}


def _look(store: Store) -> FolderContents:
    entries = store.entries()
    manifests = committed(store)
    pointers = {pointer: name for pointer in POINTERS if (name := pointed_name(store, pointer)) is not None}
    folders = _folders(store)
    by_name = {manifest.name: manifest for manifest in manifests}
    judge = _Judge(store, entries, folders, by_name, pointers)
    others = [other for name in sorted(entries) if (other := judge.other(name)) is not None]
    others += [other for name in folders for other in judge.folder(name)]
    return FolderContents(
        url=store.url,
        checkpoints=tuple(info_of(store, manifest) for manifest in manifests),
        pointers=pointers,
        others=tuple(others),
        nbytes=sum(entry.nbytes for listed in (entries, *folders.values()) for entry in listed.values()),
    )


def _folders(store: Store) -> dict[str, Mapping[str, Entry]]:
    """The files in each folder inside that is, was or may become a sharded checkpoint."""
    found: dict[str, Mapping[str, Entry]] = {}
    if not isinstance(store, NestingStore):
        return {}
    for name in sorted(store.folders()):
        with suppress(UnsafePathError):  # somebody's, such as .git
            files = store.folder(name).entries()
            # other files beside temporary ones: another run, which writes
            is_killed = bool(files) and all(map(TEMPORARY.fullmatch, files))
            if is_killed or any(file == METADATA or save_id_of(file) for file in files):
                found[name] = files
    return found


class _Judge:
    """Says of one file after the other what it is."""

    def __init__(
        self,
        store: Store,
        entries: Mapping[str, Entry],
        folders: Mapping[str, Mapping[str, Entry]],
        checkpoints: Mapping[str, Manifest],
        pointers: Mapping[SavedAs, str],
    ) -> None:
        self._store = store
        self._entries = entries
        self._folders = folders
        self._checkpoints = checkpoints
        self._pointers = pointers

    def other(self, name: str) -> OtherFile | None:
        """What a file is; None for a committed checkpoint's and a good pointer."""
        if name in self._checkpoints or name == OWNER_FILE:
            return None
        for pointer, file in POINTERS.items():
            if name == file:
                return self._pointer(name, self._pointers.get(pointer))
        if TEMPORARY.fullmatch(name):
            return self._temporary(name)
        if name.endswith(NEXT_SUFFIX):
            return self._next(name, name.removesuffix(NEXT_SUFFIX))
        if name.endswith(MANIFEST_SUFFIX):
            return self._manifest(name, name.removesuffix(MANIFEST_SUFFIX))
        return self._data(name)

    def folder(self, name: str) -> Iterator[OtherFile]:
        """What is in a folder inside that is no committed checkpoint, or beside one."""
        manifest = self._checkpoints.get(name)
        if manifest is None or not manifest.files:
            yield self._whole_folder(name)
            return
        listed = {file.name for file in manifest.files}
        for file, entry in sorted(self._folders[name].items()):
            if file in listed:
                continue
            if TEMPORARY.fullmatch(file):
                yield _other(f"{name}/{file}", entry, "unfinished", "a temporary file, being written or left")
            elif save_id_of(file) is not None:
                reason = f"data of another save of {name}, which is under way, was cut short or replaced"
                yield _other(f"{name}/{file}", entry, "unfinished", reason)
            else:
                yield _other(f"{name}/{file}", entry, "foreign", f"no manifest lists it as part of {name}")

    def _whole_folder(self, name: str) -> OtherFile:
        files = self._folders[name]
        modified = [entry.modified_s for entry in files.values() if entry.modified_s is not None]
        entry = Entry(sum(file.nbytes for file in files.values()), max(modified, default=None))
        return _other(f"{name}/", entry, *self._judged_folder(name, files))

    def _judged_folder(self, name: str, files: Mapping[str, Entry]) -> tuple[_Kind, str]:
        if manifest_name(name) in self._entries:
            try:
                manifest = read_manifest(self._store, manifest_name(name))
            except CorruptCheckpointError as error:
                return "damaged", str(error)
            except ForeignCheckpointError as error:
                return "foreign", str(error)
            wrong = None if manifest is None else misfit(manifest, files)
            return "damaged", wrong or "its manifest describes something else"
        if next_manifest_name(name) in self._entries:
            return "unfinished", "not committed yet, or no more: its manifest is missing"
        if METADATA in files:
            said = "no manifest beside it: nothing vouches for it"
            return (
                "foreign",
                f"a folder in the format of torch.distributed.checkpoint, which can be loaded; {said}",
            )
        return "unfinished", "data of a save that is under way or was cut short before its commit"

    def _pointer(self, name: str, named: str | None) -> OtherFile | None:
        if named is None:
            return self._found(name, "damaged", "a pointer that names no checkpoint")
        if named in self._checkpoints:
            return None
        if named not in self._entries and named not in self._folders:
            return self._found(name, "damaged", f"a pointer to {named}, which is not there")
        if manifest_name(named) in self._entries:
            return self._found(name, "damaged", f"a pointer to {named}, which is not whole")
        return None  # to a file without a manifest, such as MMEngine's: what `restore` loads when it is named

    def _temporary(self, name: str) -> OtherFile:
        if self._store.is_being_written(name):
            return self._found(name, "unfinished", "is being written")
        return self._found(name, "unfinished", "a temporary file that no process is known to write")

    def _next(self, name: str, data: str) -> OtherFile:
        if data in self._checkpoints:
            return self._found(name, "unfinished", f"the replacement of {data}, under way or cut short")
        return self._found(name, "unfinished", f"the save or removal of {data}, under way or cut short")

    def _manifest(self, name: str, data: str) -> OtherFile | None:
        if data in self._checkpoints:
            return None
        if data in self._folders:
            return self._found(name, self._whole_folder(data).kind, f"the manifest of {data}/")
        if data not in self._entries:
            if next_manifest_name(data) in self._entries:
                return self._found(name, "unfinished", f"the manifest of {data}, which is on its way")
            return self._found(name, "damaged", f"the data that it describes, {data}, is not there")
        return self._found(name, self._data(data).kind, f"the manifest of {data}")

    def _data(self, name: str) -> OtherFile:
        if manifest_name(name) not in self._entries:
            if next_manifest_name(name) in self._entries:
                return self._found(
                    name, "unfinished", "not committed yet, or no more: its manifest is missing"
                )
            return self._found(name, "foreign", "no manifest beside it: nothing vouches for it")
        try:
            manifest = read_manifest(self._store, manifest_name(name))
        except CorruptCheckpointError as error:
            return self._found(name, "damaged", str(error))
        except ForeignCheckpointError as error:
            return self._found(name, "foreign", str(error))
        nbytes = self._entries[name].nbytes
        if manifest is None or manifest.nbytes == nbytes:
            return self._found(name, "damaged", "its manifest describes another file")
        said = f"has {nbytes} bytes where {manifest.nbytes} were saved at step {manifest.step}"
        return self._found(name, "damaged", f"{said}: truncated or overwritten")

    def _found(self, name: str, kind: _Kind, reason: str) -> OtherFile:
        return _other(name, self._entries[name], kind, reason)


def _other(name: str, entry: Entry, kind: _Kind, reason: str) -> OtherFile:
    modified = None if entry.modified_s is None else datetime.fromtimestamp(entry.modified_s, UTC)
    return OtherFile(name, entry.nbytes, modified, kind, reason)
