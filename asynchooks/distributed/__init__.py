"""Ranks: who this process is among them, and what they agree on: on the training thread, and behind it."""

from asynchooks.distributed._collective import all_reduce_mean
from asynchooks.distributed._control import (
    any_rank,
    broadcast_object,
    control_group,
    decided_by_first,
    found_by_first,
    gather_objects,
    gather_to_first,
    tried_by_all,
)
from asynchooks.distributed._open import open_rendezvous
from asynchooks.distributed._ranks import is_distributed, is_first_rank, rank, world_size
from asynchooks.distributed._rendezvous import Rendezvous
from asynchooks.distributed._round import Round
from asynchooks.distributed._votes import Votes

__all__ = [
    "Rendezvous",
    "Round",
    "Votes",
    "all_reduce_mean",
    "any_rank",
    "broadcast_object",
    "control_group",
    "decided_by_first",
    "found_by_first",
    "gather_objects",
    "gather_to_first",
    "is_distributed",
    "is_first_rank",
    "open_rendezvous",
    "rank",
    "tried_by_all",
    "world_size",
]
