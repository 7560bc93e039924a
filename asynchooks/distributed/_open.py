"""A rendezvous of the ranks of the default process group."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.distributed as dist

from asynchooks.distributed._ranks import is_distributed, rank, world_size
from asynchooks.distributed._rendezvous import Rendezvous

__all__ = ["open_rendezvous"]

_opened: Counter[tuple[int, str]] = Counter()


def open_rendezvous(name: str, **options: Any) -> Rendezvous:
    """Return a rendezvous of all ranks, through the store of the default process group, and start it.

    Every rank opens the same ones in the same order. Under ``torchrun`` that store lives with the agent and is
    new for every restart; else it lives with the first rank. Without a process group, the process meets itself.

    Args:
        name: what it is for, the same on every rank; may be used again.
        options: those of `Rendezvous`: ``deadline_s``, ``absent_s``, ``fan_in``.

    Raises:
        RankLostError: the store is gone.
    """
    if not is_distributed():
        return Rendezvous(None, rank=0, world_size=1, name=name, **options)
    store = dist.distributed_c10d._get_default_store()  # noqa: SLF001 - torch has no public way
    key = (id(dist.group.WORLD), name)
    _opened[key] += 1
    meeting = Rendezvous(
        store, rank=rank(), world_size=world_size(), name=f"{name}/{_opened[key]}", **options
    )
    meeting.start()
    return meeting
