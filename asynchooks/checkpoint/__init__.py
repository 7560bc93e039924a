"""Checkpoints on every store: captured at one instant, committed whole, verified when loaded."""

from __future__ import annotations

from asynchooks.checkpoint._capture import Snapshot, capture, state_nbytes
from asynchooks.checkpoint._checkpointer import Checkpointer
from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._inspect import FolderContents, OtherFile, inspect_folder
from asynchooks.checkpoint._manifest import CheckpointInfo
from asynchooks.checkpoint._prune import prune
from asynchooks.checkpoint._restore import (
    find_latest,
    list_checkpoints,
    read_pointer,
    restore,
    restore_latest,
)
from asynchooks.checkpoint._retention import (
    KeepAll,
    KeepAny,
    KeepBest,
    KeepEvery,
    KeepLast,
    RetentionPolicy,
    Verdict,
)
from asynchooks.checkpoint._storage import Entry, Progress, Store, open_store
from asynchooks.checkpoint._sweep import sweep
from asynchooks.checkpoint._verify import verify

__all__ = [
    "Checkpointer",
    "Snapshot",
    "capture",
    "state_nbytes",
    "CheckpointInfo",
    "restore",
    "restore_latest",
    "verify",
    "list_checkpoints",
    "find_latest",
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
    "Entry",
    "Progress",
    "Store",
    "open_store",
]
