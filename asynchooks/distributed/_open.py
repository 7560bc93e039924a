"""A rendezvous of the ranks of the default process group."""

from __future__ import annotations

import uuid
from typing import Any

import torch.distributed as dist

from asynchooks.distributed._control import broadcast_object
from asynchooks.distributed._ranks import is_distributed, rank, world_size
from asynchooks.distributed._rendezvous import Rendezvous

__all__ = ["open_rendezvous"]


def open_rendezvous(name: str, **options: Any) -> Rendezvous:
    """Return a rendezvous of all ranks, through the store of the default process group, and start it.

    A collective on the training thread: every rank opens the same ones in the same order. Under ``torchrun`` that
    store lives with the agent and is new for every restart; else it lives with the first rank. Without a process
    group, the process meets itself.

    Args:
        name: what it is for, the same on every rank; may be used again.
        options: those of `Rendezvous`: ``deadline_s``, ``absent_s``, ``fan_in``.

    Raises:
        RankLostError: the store is gone.
    """
    if not is_distributed():
        return Rendezvous(None, rank=0, world_size=1, name=name, **options)
    store = dist.distributed_c10d._get_default_store()  # noqa: SLF001 - torch has no public way
    token = broadcast_object(uuid.uuid4().hex[:12])  # the name may be in use, or have been
    meeting = Rendezvous(store, rank=rank(), world_size=world_size(), name=f"{name}/{token}", **options)
    meeting.start()
    return meeting
