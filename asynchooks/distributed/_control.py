"""What ranks tell each other on the training thread: small objects, in the same order on every rank.

They travel through the CPU, on a gloo group of all ranks: a message never waits for a device's queue. Collectives:
every rank calls, on the training thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from asynchooks.distributed._ranks import is_distributed, rank, world_size
from asynchooks.errors import DistributedError, RankFailedError

__all__ = [
    "answered",
    "any_rank",
    "broadcast_object",
    "control_group",
    "decided_by_first",
    "found_by_first",
    "gather_objects",
    "gather_to_first",
    "tried_by_all",
]

T = TypeVar("T")

_groups: dict[int, tuple[Any, Any]] = {}


def control_group() -> Any:
    """The group for control messages: made when it is first asked for, a collective then; None without ranks.

    A group of its own, also where the default one is gloo: what is under way on it orders nothing of the training's.
    """
    if _is_alone():
        return None
    world = dist.group.WORLD
    known = _groups.get(id(world))
    if known is None or known[0] is not world:
        _groups.clear()
        known = _groups[id(world)] = (world, dist.new_group(backend="gloo"))
    return known[1]


def broadcast_object(value: T, *, source: int = 0) -> T:
    """Return the value that one rank has, the first unless another is named; picklable, small."""
    group = control_group()
    if group is None:
        return value
    values: list[Any] = [value]
    with answered():
        dist.broadcast_object_list(values, src=source, group=group)
    told: T = values[0]
    return told


def gather_objects(value: T) -> list[T]:
    """Return every rank's value, by rank, on every rank; picklable, small."""
    group = control_group()
    if group is None:
        return [value]
    values: list[Any] = [None] * world_size()
    with answered():
        dist.all_gather_object(values, value, group=group)
    return values


def gather_to_first(value: T) -> list[T] | None:
    """Return every rank's value, by rank, on the first rank; None on the others. Picklable."""
    group = control_group()
    if group is None:
        return [value]
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    with answered():
        dist.gather_object(value, values, dst=0, group=group)
    return values


def any_rank(flag: bool) -> bool:  # noqa: FBT001 - its only argument
    """Whether the flag is set on any rank."""
    group = control_group()
    if group is None:
        return flag
    vote = torch.tensor([flag], dtype=torch.uint8)
    with answered():
        dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=group)
    return bool(vote)


def decided_by_first(mine: T, decide: Callable[[list[T]], Sequence[Any]]) -> Any:
    """Return the answer for this rank that the first one derives from what all have; picklable.

    Args:
        mine: what this rank has.
        decide: called on the first rank; returns an answer for each rank. It must not raise.
    """
    group = control_group()
    if group is None:
        return decide([mine])[0]
    everyone = gather_to_first(mine)
    answers = [*decide(everyone)] if everyone is not None else None
    answer: list[Any] = [None]
    with answered():
        dist.scatter_object_list(answer, answers, src=0, group=group)
    return answer[0]


def found_by_first(what: str, attempt: Callable[[], T]) -> T:
    """Return what the first rank's attempt gives, on every rank; picklable. It must not contain a collective.

    Args:
        what: names it in messages: "rank 0 could not <what>".
        attempt: is called on the first rank.

    Raises:
        Exception: the first rank's own error.
        RankFailedError: on the others, with its text.
    """
    mine: tuple[Any, Exception | None, str | None] = (None, None, None)
    if rank() == 0:
        mine = _tried(attempt)
    result, error, text = mine
    text, result = broadcast_object((text, result))
    if error is not None:
        raise error
    if text is not None:
        raise RankFailedError(f"rank 0 could not {what}: {text}", rank=0)
    return result  # type: ignore[no-any-return]


def tried_by_all(what: str, attempt: Callable[[], T]) -> T:
    """Return what an attempt gives, if it succeeds on every rank; it must not contain a collective.

    Args:
        what: names it in messages: "rank 1 could not <what>".
        attempt: is called once.

    Raises:
        Exception: this rank's own error.
        RankFailedError: on the others, with the rank and its error.
    """
    if _is_alone():
        return attempt()
    result, error, own_text = _tried(attempt)
    texts = gather_objects(own_text)
    if error is not None:
        error.add_note(f"on rank {rank()}")
        raise error
    for number, text in enumerate(texts):
        if text is not None:
            raise RankFailedError(f"rank {number} could not {what}: {text}", rank=number)
    return result  # type: ignore[no-any-return]


def _tried(attempt: Callable[[], Any]) -> tuple[Any, Exception | None, str | None]:
    """What an attempt gives, or how it fails, and the text that the other ranks are told of that."""
    try:
        return attempt(), None, None
    except Exception as error:  # noqa: BLE001 - every rank is told, and this one raises it
        return None, error, f"{type(error).__name__}: {error}"


@contextmanager
def answered() -> Iterator[None]:
    """Say what it means that a collective of the control group fails.

    Raises:
        DistributedError: a rank has ended, or has not taken part in time.
    """
    try:
        yield
    except RuntimeError as error:
        raise DistributedError(
            f"the ranks cannot agree: one of them has ended or hangs ({str(error).partition(chr(10))[0]})."
        ) from error


def _is_alone() -> bool:
    """Whether there is nobody to talk to; torch's "fake" backend plays one rank of several on its own."""
    return not is_distributed() or dist.get_backend() == "fake"
