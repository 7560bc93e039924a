"""How the ranks of these tests plan and save together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asynchooks.checkpoint._sharded._saving import Party
from asynchooks.distributed import (
    any_rank,
    broadcast_object,
    gather_objects,
    is_first_rank,
    open_rendezvous,
    rank,
)

SESSION = "5" * 32


class Talking:
    """Over the control group."""

    def any_rank(self, flag: bool) -> bool:
        return any_rank(flag)

    def decided_by_first(self, mine: Any, decide: Callable[[list[Any]], Sequence[Any]]) -> Any:
        everybody = gather_objects(mine)
        answers = decide(everybody) if is_first_rank() else []
        return broadcast_object(answers)[rank()]


def party() -> Party:
    """The ranks that there are."""
    return Party(open_rendezvous("saves"), SESSION)
