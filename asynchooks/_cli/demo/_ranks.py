"""The demo on ranks: what they share, and what is proven beside one process. Collectives, on the training thread."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from asynchooks._cli.demo._alone import losses_of_one_process
from asynchooks._cli.demo._proof import Claim
from asynchooks._cli.demo._store import open_store
from asynchooks.distributed import (
    broadcast_object,
    found_by_first,
    gather_objects,
    is_first_rank,
    world_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asynchooks._cli.demo._measure import Arm
    from asynchooks._cli.demo._store import Store
    from asynchooks._cli.demo._training import Run

__all__ = ["TOLERANCE", "describe_ranks", "prove_like_one_process", "shared_store", "slowest"]

TOLERANCE = 1e-4
"""Nats per byte. Ranks add gradients in another order than one process does, and AdamW divides by their size."""


@contextlib.contextmanager
def shared_store(url: str | None, bandwidth_mb_s: float) -> Iterator[Store]:
    """`open_store` on the first rank; the others are told of it."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(open_store(url, bandwidth_mb_s)) if is_first_rank() else None
        store = broadcast_object(own)
        assert store is not None  # noqa: S101 - the first rank has it
        yield store


def describe_ranks(strategy: str | None) -> str:
    """Return what a reader of the table must know of the ranks; nothing where there is one process."""
    if strategy is None:
        return ""
    return (
        f"{world_size()} ranks, {strategy}; pure compute is the first rank's, a mode's numbers are those of the rank "
        f"that lost most."
    )


def slowest(arm: Arm) -> Arm:
    """The numbers of the rank that lost most: all ranks wait for it."""
    arms = gather_objects(arm)
    return max(arms, key=lambda each: each.exposed_s + (each.inflation_s or 0.0))


def prove_like_one_process(job: Mapping[str, Any], run: Run, saved: tuple[int, str]) -> list[Claim]:
    """Compare losses with those of one process that trains from the start, and of one that takes up a checkpoint.

    Args:
        job: as of `losses_of_one_process`.
        run: of the ranks, from the start.
        saved: step and URL of a checkpoint of that run.
    """
    ranks = gather_objects(run.losses)
    expected = [sum(losses) / len(losses) for losses in zip(*ranks, strict=True)]
    step, url = saved

    def compare() -> list[Claim]:
        whole, rest = losses_of_one_process(job, [None, url])
        batch = job["batch_size"]
        return [
            _close(whole, expected, f"one process with the same batch of {batch}, from the start"),
            _close(rest, expected[step:], f"one process that takes up {url}, saved by {world_size()} ranks"),
        ]

    return found_by_first("compare with one process", compare)


def _close(losses: Sequence[float], expected: Sequence[float], what: str) -> Claim:
    if len(losses) != len(expected):
        return Claim(holds=False, text=f"{what}: {len(losses)} losses, not {len(expected)}")
    apart = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    return Claim(
        holds=apart <= TOLERANCE,
        text=(
            f"{what}: {len(losses)} losses, at most {apart:.1e} from those of the ranks "
            f"(tolerance {TOLERANCE:g})"
        ),
    )
