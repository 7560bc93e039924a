"""The one door to storage: a folder on some store, behind eight methods.

Decides which kind of store serves a URL. Everything above it knows `Store` only; everything below it knows
one kind only. A call blocks: it belongs on a worker thread, or in a plain script.
"""

from __future__ import annotations

from asynchooks.checkpoint._storage._backend_args import store_options
from asynchooks.checkpoint._storage._errors import Stopped
from asynchooks.checkpoint._storage._open import WriterChoice, open_folder, open_store
from asynchooks.checkpoint._storage._owner_file import GuardingStore, OwnerFile, owner_file
from asynchooks.checkpoint._storage._store import (
    Entry,
    NestingStore,
    Progress,
    Share,
    SharedStore,
    Store,
    UploadingStore,
    nesting,
    nothing,
    read_all,
    scatter,
    shared,
    unlimited,
)

__all__ = [
    "Entry",
    "GuardingStore",
    "NestingStore",
    "OwnerFile",
    "Progress",
    "Share",
    "SharedStore",
    "Stopped",
    "Store",
    "UploadingStore",
    "WriterChoice",
    "nesting",
    "nothing",
    "open_folder",
    "open_store",
    "owner_file",
    "read_all",
    "scatter",
    "shared",
    "store_options",
    "unlimited",
]
