"""What the first rank of a run does for all, and what it is told: collectives, on the training thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from asynchooks.distributed import broadcast_object, control_group, rank, world_size
from asynchooks.errors import RankFailedError

__all__ = ["collected", "found_by_first"]

T = TypeVar("T")


def collected(value: T) -> list[T] | None:
    """Return every rank's value on the first rank, by rank; None on the others. A collective."""
    group = control_group()
    if group is None:
        return [value]
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return values


def found_by_first(what: str, attempt: Callable[[], T]) -> T:
    """Return what the first rank's attempt gives, on every rank; a collective.

    Raises:
        Exception: the first rank's own error.
        RankFailedError: on the others, with its text.
    """
    result: Any = None
    error: Exception | None = None
    if rank() == 0:
        try:
            result = attempt()
        except Exception as failed:  # noqa: BLE001 - every rank is told, and this one raises it
            error = failed
    text, result = broadcast_object((None if error is None else f"{type(error).__name__}: {error}", result))
    if error is not None:
        raise error
    if text is not None:
        raise RankFailedError(f"rank 0 could not {what}: {text}", rank=0)
    return result  # type: ignore[no-any-return]
