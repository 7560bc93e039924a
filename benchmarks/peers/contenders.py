"""All contenders, by the name that the table shows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers.contender import Contender

__all__ = ["CONTENDERS", "FLOOR", "NO_SAVE", "OURS", "OVERLAPPED", "OWN", "contender_class", "is_peer"]

OURS = "asynchooks"
OVERLAPPED = "asynchooks, overlapped"
OWN = (OURS, OVERLAPPED)
FLOOR = "floor: memcpy, raw write"
NO_SAVE = "floor: no save"

CONTENDERS: dict[str, tuple[str, str]] = {
    OURS: ("peers.ours", "Ours"),
    OVERLAPPED: ("peers.ours", "OursOverlapped"),
    "torch.save": ("peers.torch_own", "TorchSave"),
    "torch.save + fsync": ("peers.torch_own", "TorchSaveSynced"),
    "Lightning AsyncCheckpointIO": ("peers.foreign", "LightningAsync"),
    "DCP async_save, thread": ("peers.torch_own", "DcpThread"),
    "DCP async_save, cached staging": ("peers.torch_own", "DcpCached"),
    "DCP async_save, async staging": ("peers.torch_own", "DcpAsyncStaging"),
    "DCP async_save, process": ("peers.torch_own", "DcpProcess"),
    "torchsnapshot async_take": ("peers.foreign", "TorchSnapshot"),
    "torch_checkpointing": ("peers.foreign", "TorchCheckpointing"),
    FLOOR: ("peers.floors", "Floor"),
    NO_SAVE: ("peers.floors", "NoSave"),
}


def contender_class(name: str) -> type[Contender]:
    """Return a contender's class; loads its module, and not yet its library."""
    module, attribute = CONTENDERS[name]
    found: type[Contender] = getattr(import_module(module), attribute)
    return found


def is_peer(name: str) -> bool:
    """Whether a contender is another project's way to save."""
    return name not in (*OWN, FLOOR, NO_SAVE)
