"""All savers, by the name that the command line has for them.

One more is a subclass of `sharded_peers.saving.Saver` and a line here: `save` returns on the training thread of every
rank with a `Pending`, which any thread ends when the checkpoint is committed; `open` and `close` may meet. Times that
it tells in `Pending.parts` go to the JSON file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sharded_peers.saving import Saver

__all__ = ["NO_SAVE", "SAVERS", "saver_class"]

NO_SAVE = "none"
SAVERS: dict[str, tuple[str, str]] = {
    "ours": ("sharded_peers.ours", "Ours"),
    "ours_at_once": ("sharded_peers.ours", "OursAtOnce"),
    "ours_inline": ("sharded_peers.ours", "OursInline"),
    "dcp_save": ("sharded_peers.saving", "DcpSave"),
    "dcp_thread": ("sharded_peers.saving", "DcpThread"),
    "dcp_thread_cached": ("sharded_peers.saving", "DcpThreadCached"),
    "dcp_thread_overlapped": ("sharded_peers.saving", "DcpThreadOverlapped"),
    "dcp_process": ("sharded_peers.saving", "DcpProcess"),
    "dcp_process_cached": ("sharded_peers.saving", "DcpProcessCached"),
    NO_SAVE: ("sharded_peers.saving", "NoSave"),
}


def saver_class(name: str) -> type[Saver]:
    """Return the class of a saver; its libraries are loaded with it."""
    module, attribute = SAVERS[name]
    found: type[Saver] = getattr(import_module(module), attribute)
    return found
