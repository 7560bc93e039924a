"""Where a pass over the data goes on when another number of ranks continues it: after the samples that are done.

A sampler of a common order, of which each rank takes every n-th sample, goes on exactly there (`start_at`). Any
other is asked for as many batches as come nearest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asynchooks.distributed import world_size

__all__ = ["Offset", "carried_over"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offset:
    """What of a pass was done by other numbers of ranks.

    Attributes:
        samples: samples of all ranks together.
        batches: how many batches of one rank that is now, rounded down.
    """

    samples: int = 0
    batches: int = 0

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Offset:
        """Return what `state_dict` described, or nothing."""
        return cls(state.get("samples_before", 0), state.get("batches_before", 0))

    def state_dict(self, loader: Any) -> dict[str, Any]:
        """Return it, with what another number of ranks needs to know of these."""
        state = {"ranks": world_size(), "batch_size": _batch_size(loader)}
        if not self.samples:
            return state
        return {**state, "samples_before": self.samples, "batches_before": self.batches}

    def length_of_pass(self, loader: Any, sampler: Any) -> int:
        """Return how many batches of these ranks the whole pass is, of a loader that has a length."""
        if not self.samples:
            return len(loader)
        sampler.start_at(self.samples)
        try:
            return self.batches + len(loader)
        finally:
            sampler.start_at(0)


def carried_over(state: Mapping[str, Any], loader: Any, sampler: Any) -> dict[str, Any]:
    """Return a position in a pass for this number of ranks."""
    ranks, size = state.get("ranks", 1), state.get("batch_size")
    if ranks == world_size():
        return dict(state)
    now = _batch_size(loader) or size
    before = Offset.of(state)
    done = state["done"] - before.batches
    if size is None or now is None:
        size = now = 1
    samples = before.samples + done * size * ranks
    batches = samples // (now * world_size())
    state = {**state, "ranks": world_size(), "batch_size": now}
    if hasattr(sampler, "start_at"):
        return {**state, "done": batches, "samples_before": samples, "batches_before": batches}
    logger.warning(
        "%s gives each number of ranks an order of its own, so the pass over the data goes on after %d batches of "
        "this one, which need not be the samples that are done; a DefaultSampler goes on exactly",
        type(sampler).__name__,
        batches,
    )
    return {**state, "done": batches, "samples_before": 0, "batches_before": 0}


def _batch_size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None)
    if size is None:
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) else None
