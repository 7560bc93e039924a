"""What the ranks of a run tell each other on the training thread: small objects, in the same order on every rank.

They travel through the CPU, on a gloo group: a message never waits for a device's queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from asynchooks.distributed import is_distributed, rank, world_size

__all__ = ["collected", "found_by_first", "gathered", "has_ranks", "told", "tried_by_all"]

T = TypeVar("T")

_groups: dict[int, Any] = {}


def told(value: T, *, source: int = 0) -> T:
    """Return the value of one rank, the first where none is named. A collective where there are ranks."""
    if not has_ranks():
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=source, group=_group())
    told_value: T = values[0]
    return told_value


def gathered(value: T) -> list[T]:
    """Return every rank's value, by rank. A collective where there are ranks."""
    if not has_ranks():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_group())
    return values


def collected(value: T) -> list[T] | None:
    """Return every rank's value on the first rank, by rank; None on the others. A collective."""
    if not has_ranks():
        return [value]
    is_first = rank() == 0
    values: list[Any] | None = [None] * world_size() if is_first else None
    dist.gather_object(value, values, dst=0, group=_group())
    return values


def found_by_first(what: str, attempt: Callable[[], T]) -> T:
    """Return what the first rank's attempt gives, on every rank; a collective.

    Raises:
        Exception: the first rank's own error; on the others, `RuntimeError` with its text.
    """
    if not has_ranks():
        return attempt()
    result: Any = None
    error: Exception | None = None
    if rank() == 0:
        try:
            result = attempt()
        except Exception as failed:  # noqa: BLE001 - every rank is told, and this one raises it
            error = failed
    text, result_of_first = told((None if error is None else f"{type(error).__name__}: {error}", result))
    if error is not None:
        raise error
    if text is not None:
        raise RuntimeError(f"rank 0 could not {what}: {text}")
    return result_of_first  # type: ignore[no-any-return]


def tried_by_all(what: str, attempt: Callable[[], T]) -> T:
    """Return what an attempt gives, if it succeeds on every rank; it must not contain a collective.

    Raises:
        Exception: this rank's own error; or, on the others, `RuntimeError` with the rank and its error.
    """
    if not has_ranks():
        return attempt()
    result: Any = None
    error: Exception | None = None
    try:
        result = attempt()
    except Exception as failed:  # noqa: BLE001 - every rank is told, and this one raises it
        error = failed
    errors = gathered(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        error.add_note(f"on rank {rank()}")
        raise error
    for number, text in enumerate(errors):
        if text is not None:
            raise RuntimeError(f"rank {number} could not {what}: {text}")
    return result  # type: ignore[no-any-return]


def has_ranks() -> bool:
    """Whether there is somebody to talk to; torch's "fake" backend plays one rank of several on its own."""
    return is_distributed() and dist.get_backend() != "fake"


def _group() -> Any:
    """A gloo group of all ranks: the default one where that is gloo."""
    world = dist.group.WORLD
    if dist.get_backend() == "gloo":
        return world
    key = id(world)
    if key not in _groups:
        _groups.clear()
        _groups[key] = dist.new_group(backend="gloo")
    return _groups[key]
