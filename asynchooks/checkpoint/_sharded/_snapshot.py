"""What one rank writes of a state, copied at one instant on the training thread.

Decides that a rank copies its own items alone, and when objects are pickled: behind the training thread, from a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from asynchooks.checkpoint._capture._capture import Snapshot, capture, state_nbytes
from asynchooks.checkpoint._capture._overlap import NOBODY, Overlap, Watch
from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._manifest import Layout
from asynchooks.checkpoint._sharded._layout import lay_out, plain
from asynchooks.checkpoint._sharded._pickles import pickled
from asynchooks.checkpoint._sharded._planning import Planning, RankPlan, local_part

__all__ = ["PlannedState", "ShardSnapshot", "capture_shards", "plan_shards"]


@dataclass(frozen=True, slots=True)
class PlannedState:
    """A state of which this rank knows what it writes; live, not copied yet.

    Attributes:
        plan: what it writes.
        parts: tensors by `index_key`, objects by name.
    """

    plan: RankPlan
    parts: Mapping[str, Any]

    def nbytes(self, *, overlap: Overlap | Iterable[Overlap] = ()) -> int:
        """Bytes that `capture_shards` will copy."""
        return state_nbytes(dict(self.parts), overlap=overlap)


@dataclass(frozen=True, slots=True)
class ShardSnapshot:
    """One rank's part of a state at one instant.

    Attributes:
        plan: what it is.
        parts: the copies.
    """

    layout: ClassVar[Layout] = "sharded"
    kind: ClassVar[type] = dict
    plan: RankPlan
    parts: Snapshot

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data in it."""
        return self.parts.nbytes

    @property
    def unsafe(self) -> tuple[str, ...]:
        """Places of what ``weights_only=True`` will refuse."""
        return self.parts.unsafe

    def wait(self) -> None:
        """Block until all bytes are there. Any thread.

        Raises:
            CaptureError: something changed while it was still being copied.
        """
        self.parts.wait()

    def lay_out(self) -> tuple[Content, list[int]]:
        """The bytes of this rank's data file, and the length of each item, in the order of the plan. After `wait`."""
        parts = self.parts.outline
        tensors = [plain(key, parts[key]) for key in self.plan.tensors]
        return lay_out(tensors, [pickled(parts[key]) for key in self.plan.objects])


def plan_shards(state: Mapping[str, Any], planning: Planning) -> PlannedState:
    """Find out what this rank writes of a state. Training thread; a collective, see `Planning.plan`."""
    plan, flat = planning.plan(state)
    parts: dict[str, Any] = {key: local_part(flat[index.fqn]) for key, index in plan.tensors.items()}
    parts.update({key: flat[index.fqn] for key, index in plan.objects.items()})
    return PlannedState(plan, parts)


def capture_shards(
    state: PlannedState, *, overlap: Overlap | Iterable[Overlap] = (), watch: Watch = NOBODY
) -> ShardSnapshot:
    """Copy what this rank writes. Training thread; arguments and errors as of `capture`. No collective."""
    return ShardSnapshot(state.plan, capture(dict(state.parts), overlap=overlap, watch=watch))
