"""Ranks: who this process is among them, and what they do together on the training thread."""

from asynchooks.distributed._collective import all_reduce_mean
from asynchooks.distributed._ranks import is_distributed, is_first_rank, rank, world_size

__all__ = ["all_reduce_mean", "is_distributed", "is_first_rank", "rank", "world_size"]
