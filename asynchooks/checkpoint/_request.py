"""What a caller of `Checkpointer.save` asked for, checked where it was asked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynchooks.checkpoint._manifest import POINTERS, CheckpointInfo, SavedAs, check_name
from asynchooks.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asynchooks.checkpoint._capture._capture import Snapshot
    from asynchooks.checkpoint._retention import RetentionPolicy
    from asynchooks.checkpoint._sharded._snapshot import ShardSnapshot

__all__ = ["Request", "at_step", "behind_commit", "checked"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller of `save` asked for, checked."""

    snapshot: Snapshot | ShardSnapshot
    name: str
    step: int
    epoch: int | None
    metrics: Mapping[str, float]
    pointer: SavedAs | None
    keep: RetentionPolicy | None
    group: str
    on_commit: Callable[[], None]


def checked(
    snapshot: Snapshot | ShardSnapshot,
    name: str,
    step: int,
    epoch: int | None,
    metrics: Mapping[str, float] | None,
    pointer: SavedAs | None,
    keep: RetentionPolicy | None,
    group: str | None,
    on_commit: Callable[[], None],
) -> Request:
    if not issubclass(snapshot.kind, dict):
        raise TypeError(f"a checkpoint's state is a dict, not a {snapshot.kind.__name__}")
    if pointer is not None and pointer not in POINTERS:
        raise ValueError(f"pointer is one of {[*POINTERS]} or None, not {pointer!r}")
    if keep is not None and not hasattr(keep, "keeps"):
        raise TypeError(f"keep is a retention policy such as KeepLast(3), not {keep!r}")
    return Request(
        snapshot=snapshot,
        name=check_name(name),
        step=int(step),
        epoch=None if epoch is None else int(epoch),
        metrics={str(key): float(value) for key, value in (metrics or {}).items()},
        pointer=pointer,
        keep=keep,
        group=group or pointer or "last",
        on_commit=on_commit,
    )


def at_step(error: CheckpointError, request: Request) -> CheckpointError:
    """The same error with the step in its message."""
    told = type(error)(f"step {request.step}: {error}")
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


@contextmanager
def behind_commit(info: CheckpointInfo) -> Iterator[None]:
    """Have what fails from now on say that the checkpoint is there."""
    try:
        yield
    except CheckpointError as error:
        error.add_note(f"The checkpoint itself is committed: {info.url}")
        raise
