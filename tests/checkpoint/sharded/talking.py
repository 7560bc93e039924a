"""How the ranks of these tests save together."""

from __future__ import annotations

from asynchooks.checkpoint._sharded._saving import Party
from asynchooks.distributed import open_rendezvous

SESSION = "5" * 32


def party() -> Party:
    """The ranks that there are."""
    return Party(open_rendezvous("saves"), SESSION)
