"""Checkpoints on every store: captured at one instant, committed whole, verified when loaded.

Importing this package loads no torch: a process that only writes bytes to a store needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynchooks.checkpoint._capture._capture import Snapshot, capture, prepare_capture, state_nbytes
    from asynchooks.checkpoint._capture._overlap import NOBODY, Overlap, Watch, before_step
    from asynchooks.checkpoint._checkpointer import Checkpointer
    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._inspect import FolderContents, OtherFile, inspect_folder
    from asynchooks.checkpoint._manifest import CheckpointInfo
    from asynchooks.checkpoint._mirror import Mirror
    from asynchooks.checkpoint._prune import prune
    from asynchooks.checkpoint._restore._finding import find_latest, list_checkpoints, read_pointer
    from asynchooks.checkpoint._restore._restore import find_readable, restore, restore_latest
    from asynchooks.checkpoint._restore._verify import verify
    from asynchooks.checkpoint._retention import (
        KeepAll,
        KeepAny,
        KeepBest,
        KeepEvery,
        KeepLast,
        RetentionPolicy,
        Verdict,
    )
    from asynchooks.checkpoint._sharded._entries import ShardEntry, shard_entries
    from asynchooks.checkpoint._sharded._planning import Planning
    from asynchooks.checkpoint._sharded._reader import ShardReader
    from asynchooks.checkpoint._sharded._saving import Party
    from asynchooks.checkpoint._sharded._snapshot import (
        PlannedState,
        ShardSnapshot,
        capture_shards,
        plan_shards,
    )
    from asynchooks.checkpoint._sharded._writer import ShardWriter
    from asynchooks.checkpoint._storage import (
        Entry,
        NestingStore,
        OwnerFile,
        Progress,
        Store,
        open_store,
        owner_file,
        store_options,
    )
    from asynchooks.checkpoint._sweep import sweep

__all__ = [
    "Checkpointer",
    "Snapshot",
    "capture",
    "before_step",
    "prepare_capture",
    "Overlap",
    "NOBODY",
    "Watch",
    "state_nbytes",
    "CheckpointInfo",
    "PlannedState",
    "ShardSnapshot",
    "ShardEntry",
    "shard_entries",
    "Planning",
    "plan_shards",
    "capture_shards",
    "Party",
    "restore",
    "restore_latest",
    "ShardReader",
    "ShardWriter",
    "verify",
    "list_checkpoints",
    "find_latest",
    "find_readable",
    "read_pointer",
    "FolderContents",
    "OtherFile",
    "inspect_folder",
    "Verdict",
    "prune",
    "sweep",
    "KeepAll",
    "KeepAny",
    "KeepBest",
    "KeepEvery",
    "KeepLast",
    "RetentionPolicy",
    "Content",
    "Mirror",
    "Entry",
    "NestingStore",
    "OwnerFile",
    "Progress",
    "Store",
    "open_store",
    "owner_file",
    "store_options",
]

_MODULES = {
    "_capture._capture": ("Snapshot", "capture", "prepare_capture", "state_nbytes"),
    "_checkpointer": ("Checkpointer",),
    "_content": ("Content",),
    "_inspect": ("FolderContents", "OtherFile", "inspect_folder"),
    "_manifest": ("CheckpointInfo",),
    "_capture._overlap": ("NOBODY", "Overlap", "Watch", "before_step"),
    "_mirror": ("Mirror",),
    "_prune": ("prune",),
    "_restore._finding": ("find_latest", "list_checkpoints", "read_pointer"),
    "_restore._restore": ("find_readable", "restore", "restore_latest"),
    "_retention": ("KeepAll", "KeepAny", "KeepBest", "KeepEvery", "KeepLast", "RetentionPolicy", "Verdict"),
    "_sharded._reader": ("ShardReader",),
    "_sharded._writer": ("ShardWriter",),
    "_storage": (
        "Entry",
        "NestingStore",
        "OwnerFile",
        "Progress",
        "Store",
        "open_store",
        "owner_file",
        "store_options",
    ),
    "_sharded._entries": ("ShardEntry", "shard_entries"),
    "_sharded._planning": ("Planning",),
    "_sharded._saving": ("Party",),
    "_sharded._snapshot": ("PlannedState", "ShardSnapshot", "capture_shards", "plan_shards"),
    "_sweep": ("sweep",),
    "_restore._verify": ("verify",),
}
_LAZY = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
