"""Restoring a sharded checkpoint: into new tensors that hold all of it, or into the shards that a rank has.

Decides which entries are wanted and whether they fit, before a byte is read; `read_wanted` reads them. Each rank
plans for itself, so that no collective is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner_helpers import _create_read_items
from torch.distributed.checkpoint.utils import find_state_dict_object
from torch.serialization import _get_restore_location

from asynchooks.checkpoint._restore._inplace import described, misfit_error, shares_elements
from asynchooks.checkpoint._restore._reading import Reading
from asynchooks.checkpoint._restore._selection import select
from asynchooks.checkpoint._sharded._filling import ObjectWanted, TensorWanted, read_wanted
from asynchooks.checkpoint._sharded._flat import is_one_object, name_of, parts_of
from asynchooks.checkpoint._sharded._folder import Folder, check_whole
from asynchooks.checkpoint._sharded._reader import place_of, tensor_wanted
from asynchooks.checkpoint._storage import nesting
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch.distributed.checkpoint.metadata import Metadata

    from asynchooks.checkpoint._manifest import Manifest
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["restore_sharded", "verify_sharded"]

_SPARE_PLACES = 1000


def restore_sharded(
    store: Store,
    manifest: Manifest | None,
    *,
    keys: tuple[str, ...] | None,
    into: dict[str, Any] | None,
    map_location: Any,
    weights_only: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Restore from the checkpoint's own folder; the rest as of `restore`."""
    folder = Folder.of(store, manifest)
    metadata = folder.metadata()
    state = _nested(metadata, store.url)
    if keys is not None:
        state = select(state, keys, store.url)
    wanted = dict(_leaves(state))
    loading = _Loading(folder, metadata)
    if into is not None:
        loading.fill(into, wanted)
        loading.read(weights_only, progress)
        loading.finish()
        return into
    made = _replaced(state, lambda leaf: loading.make(leaf, map_location))
    loading.read(weights_only, progress)
    loading.finish()
    result: dict[str, Any] = _replaced(made, lambda leaf: leaf.value)
    return result


def verify_sharded(store: Store, manifest: Manifest, progress: Progress) -> None:
    """Read all files of a committed checkpoint and compare them. Blocks; loads nothing.

    Raises:
        CorruptCheckpointError: names the first chunk that differs.
    """
    folder = Folder.of(nesting(store).folder(manifest.name), manifest)
    for name in sorted(folder.lengths):
        reading = Reading(folder.store, name, folder.lengths[name], progress=progress)
        reading.compare(folder.extents_of(name), save=folder.save)
        with reading.filling([], everything=True):
            pass


@dataclass(slots=True)
class _Leaf:
    """An entry of the saved state: a tensor's size or an object, and what became of it."""

    fqn: str
    entry: TensorStorageMetadata | BytesStorageMetadata
    value: Any = None


class _Loading:
    """Collects what is to be read, and then reads it at once."""

    def __init__(self, folder: Folder, metadata: Metadata) -> None:
        self._folder = folder
        self._metadata = metadata
        self._tensors: list[TensorWanted] = []
        self._objects: list[ObjectWanted] = []
        self._after: list[Callable[[], None]] = []

    def make(self, leaf: _Leaf, map_location: Any) -> _Leaf:
        """Plan a new tensor that holds all of a saved one, or the object."""
        entry = leaf.entry
        if isinstance(entry, BytesStorageMetadata):
            self._object(leaf.fqn, partial(setattr, leaf, "value"))
            return leaf
        self._check(leaf.fqn, entry)  # it bounds the memory by what the files hold
        device, move = _located(map_location)
        leaf.value = torch.empty(entry.size, dtype=entry.properties.dtype, device=device)
        self._tensor(leaf.fqn, entry, leaf.value)
        if move is not None:
            self._after.append(lambda: setattr(leaf, "value", move(leaf.value)))
        return leaf

    def fill(self, into: dict[str, Any], wanted: Mapping[str, _Leaf]) -> None:
        """Plan the existing tensors, or what this rank has of them.

        Raises:
            ForeignCheckpointError: they are not those of the file; lists what differs.
        """
        found = parts_of(into, lambda path, here: name_of(path) in wanted and is_one_object(here))
        parts = {name_of(path): (path, value) for path, value in found}
        flat = {fqn: value for fqn, (_, value) in parts.items()}
        missing = [fqn for fqn in flat if fqn not in wanted]
        unexpected = [fqn for fqn in wanted if fqn not in flat]
        different = [
            f"{fqn} ({reason})"
            for fqn, value in flat.items()
            if fqn in wanted and (reason := _misfit(value, wanted[fqn].entry))
        ]
        if missing or unexpected or different:
            raise misfit_error(self._folder.store.url, missing, unexpected, different)
        for fqn, value in flat.items():
            entry = wanted[fqn].entry
            if isinstance(entry, TensorStorageMetadata):
                self._check(fqn, entry)
                self._tensor(fqn, entry, value)
            else:
                self._object(fqn, partial(setattr, wanted[fqn], "value"))
                self._after.append(partial(_set, into, parts[fqn][0], wanted[fqn]))

    def read(self, weights_only: bool, progress: Progress) -> None:  # noqa: FBT001 - passed on
        """Read all that was planned."""
        read_wanted(self._folder, self._tensors, self._objects, weights_only=weights_only, progress=progress)

    def finish(self) -> None:
        """Put what is no tensor, and what has to move, where it belongs."""
        for act in self._after:
            act()

    def _check(self, fqn: str, entry: TensorStorageMetadata) -> None:
        where = self._folder.store.url
        check_whole(fqn, entry, where)
        for chunk in entry.chunks:
            place = place_of(self._metadata, MetadataIndex(fqn, chunk.offsets), where)
            nbytes = chunk.sizes.numel() * entry.properties.dtype.itemsize
            if nbytes and not nbytes < place.length <= self._folder.nbytes_of(place.relative_path):
                raise CorruptCheckpointError(
                    f"{where}: {place.relative_path} cannot hold the {nbytes} bytes of a shard of {fqn[:200]!r}."
                )

    def _tensor(self, fqn: str, entry: TensorStorageMetadata, value: torch.Tensor) -> None:
        where = self._folder.store.url
        for item in _create_read_items(fqn, entry, value):
            target: torch.Tensor = find_state_dict_object({fqn: value}, item.dest_index).detach()
            for dimension, (offset, size) in enumerate(zip(item.dest_offsets, item.lengths, strict=True)):
                target = target.narrow(dimension, offset, size)
            self._tensors.append(tensor_wanted(self._metadata, item, target, where))

    def _object(self, fqn: str, take: Callable[[Any], object]) -> None:
        place = place_of(self._metadata, MetadataIndex(fqn), self._folder.store.url)
        self._objects.append(ObjectWanted(place, take))


def _set(into: Any, path: tuple[Any, ...], leaf: _Leaf) -> None:
    for key in path[:-1]:
        into = into[key]
    into[path[-1]] = leaf.value


def _nested(metadata: Metadata, where: str) -> dict[str, Any]:
    """The saved state with a `_Leaf` for each entry, nested as it was before DCP flattened it."""
    paths = metadata.planner_data or {}
    root: dict[Any, Any] = {}
    for fqn, entry in metadata.state_dict_metadata.items():
        path = paths.get(fqn, (fqn,))
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
            if type(node) is not dict:
                raise CorruptCheckpointError(f"{where}: two entries lie at the same place as {fqn[:200]!r}.")
        if path[-1] in node:
            raise CorruptCheckpointError(f"{where}: two entries lie at the same place as {fqn[:200]!r}.")
        node[path[-1]] = _Leaf(fqn, entry)
    return {str(key): _with_lists(value, where) for key, value in root.items()}


def _with_lists(node: Any, where: str, depth: int = 0) -> Any:
    if type(node) is not dict:
        return node
    if depth > 100:
        raise CorruptCheckpointError(f"{where}: the state is nested too deeply to be one.")
    inner = {key: _with_lists(value, where, depth + 1) for key, value in node.items()}
    if not all(type(key) is int for key in inner):
        if any(type(key) is int for key in inner):
            raise CorruptCheckpointError(f"{where}: a part of the state is both a list and a dict.")
        return inner
    length = max(inner) + 1
    if length > 4 * len(inner) + _SPARE_PLACES:
        raise CorruptCheckpointError(f"{where}: a list of {length} entries has {len(inner)}.")
    return [inner.get(index) for index in range(length)]


def _leaves(node: Any) -> Iterable[tuple[str, _Leaf]]:
    if isinstance(node, _Leaf):
        yield node.fqn, node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _leaves(value)


def _replaced(node: Any, replace: Callable[[_Leaf], Any]) -> Any:
    if isinstance(node, _Leaf):
        return replace(node)
    if isinstance(node, dict):
        return {key: _replaced(value, replace) for key, value in node.items()}
    return [_replaced(value, replace) for value in node] if isinstance(node, list) else node


def _misfit(value: Any, entry: TensorStorageMetadata | BytesStorageMetadata) -> str | None:
    """Why a value of ours cannot take a saved entry."""
    is_tensor = isinstance(value, torch.Tensor)
    if isinstance(entry, BytesStorageMetadata):
        return f"an object in the file, {described(value)} here" if is_tensor else None
    saved = f"{str(entry.properties.dtype).removeprefix('torch.')} {tuple(entry.size)}"
    if not is_tensor or value.size() != entry.size or value.dtype != entry.properties.dtype:
        return f"{saved} in the file, {described(value)} here"
    if value.device.type == "meta":
        return "a meta tensor has no memory to read into"
    if value.layout is not torch.strided:
        return f"{saved} in the file, {value.layout} here"
    local = value.to_local() if hasattr(value, "to_local") else value
    return "an expanded tensor: several elements share their memory" if shares_elements(local) else None


def _located(map_location: Any) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor] | None]:
    """Where a new tensor is made, and how it moves when it is filled."""
    if map_location is None or isinstance(map_location, (str, torch.device)):
        return map_location or "cpu", None
    if isinstance(map_location, dict):
        return map_location.get("cpu", "cpu"), None
    locate = _get_restore_location(map_location)  # type: ignore[no-untyped-call]

    def move(tensor: torch.Tensor) -> torch.Tensor:
        storage = locate(tensor.untyped_storage(), "cpu")
        return torch.empty(0, dtype=tensor.dtype, device=storage.device).set_(
            storage, 0, tensor.size(), tensor.stride()
        )

    return "cpu", move
