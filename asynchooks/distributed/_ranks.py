"""Which rank this process is, and how many there are; a process without a group is rank 0 of 1."""

from __future__ import annotations

import torch.distributed as dist

__all__ = ["is_distributed", "is_first_rank", "rank", "world_size"]


def rank() -> int:
    """Return the number of this process among the ranks."""
    return dist.get_rank() if _has_group() else 0


def world_size() -> int:
    """Return how many ranks there are."""
    return dist.get_world_size() if _has_group() else 1


def is_distributed() -> bool:
    """Whether this process has ranks beside it."""
    return world_size() > 1


def is_first_rank() -> bool:
    """Whether this process writes for all ranks."""
    return rank() == 0


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()
