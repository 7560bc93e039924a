"""What stands in a sharded checkpoint, before any of it is read: for who decides where each entry goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from asynchooks.checkpoint._catalog import find_committed
from asynchooks.checkpoint._sharded._folder import Folder, is_sharded
from asynchooks.checkpoint._storage import nesting, open_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    import torch

__all__ = ["ShardEntry", "shard_entries"]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One entry of a sharded checkpoint.

    Attributes:
        path: the keys on the way to it, from the top of the state.
        shape: of the whole tensor; None for what is no tensor.
        dtype: of the tensor.
    """

    path: tuple[str | int, ...]
    shape: torch.Size | None = None
    dtype: torch.dtype | None = None


def shard_entries(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> dict[str, ShardEntry] | None:
    """Return the entries of a sharded checkpoint by their flat names. Blocks; reads its metadata alone.

    None where there is none of that name: a single file, say, or nothing.

    Args:
        url: the checkpoint's folder.
        storage_options: fsspec's, as in `Checkpointer`.

    Raises:
        CorruptCheckpointError: its metadata is damaged.
    """
    store, folder = open_folder(url, storage_options)
    manifest = find_committed(store, folder)
    if not manifest.files if manifest is not None else not is_sharded(store, folder):
        return None
    metadata = Folder.of(nesting(store).folder(folder), manifest).metadata()
    paths = metadata.planner_data or {}
    entries: dict[str, ShardEntry] = {}
    for name, entry in metadata.state_dict_metadata.items():
        path = tuple(paths.get(name, (name,)))
        if isinstance(entry, TensorStorageMetadata):
            entries[name] = ShardEntry(path, entry.size, entry.properties.dtype)
        else:
            entries[name] = ShardEntry(path)
    return entries
