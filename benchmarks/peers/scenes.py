"""What is measured by default: which contenders, where, with how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peers.contenders import CONTENDERS, FLOOR, OURS, OVERLAPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers.case import PlaceKind, Workload

__all__ = ["Scene", "default_scenes", "quick_scenes"]

_ALL = tuple(CONTENDERS)
_BEST = (
    OURS,
    OVERLAPPED,
    "DCP async_save, cached staging",
    "DCP async_save, async staging",
    "DCP async_save, process",
    "torch_checkpointing",
    FLOOR,
)
_REMOTE = (
    OURS,
    "torch.save",
    "Lightning AsyncCheckpointIO",
    "DCP async_save, cached staging",
    "DCP async_save, process",
    "torchsnapshot async_take",
    "torch_checkpointing",
    FLOOR,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One table: the same store, size and kind of step for all contenders.

    Attributes:
        place: kind of store.
        size_mb: of model and Adam state.
        workload: kind of step.
        device: of state and steps.
        rounds: fresh processes for each contender.
        saves: in each of them.
        peers: who.
    """

    place: PlaceKind
    size_mb: int
    workload: Workload
    device: str
    rounds: int
    saves: int
    peers: tuple[str, ...] = _ALL

    @property
    def title(self) -> str:
        """What the reader of a table needs to know."""
        steps = {"launch": "launch-bound", "compute": "compute-bound"}[self.workload]
        device = "" if self.device == "cpu" else f", {self.device}"
        return f"{self.place}, {self.size_mb} MB, {steps} steps{device}"

    @property
    def deadline_s(self) -> float:
        """After so long a contender hangs: several times what the slowest takes."""
        per_mb_s = {"local": 0.06, "tmpfs": 0.06, "s3": 0.1, "slow-s3": 0.3}[self.place]
        return 120.0 + self.saves * self.size_mb * per_mb_s

    def narrowed(self, peers: Sequence[str] | None, rounds: int | None, saves: int | None) -> Scene:
        """Return the scene with what the command line says instead."""
        names = self.peers
        if peers:
            names = tuple(name for name in _ALL if any(part.lower() in name.lower() for part in peers))
        return replace(self, peers=names, rounds=rounds or self.rounds, saves=saves or self.saves)


def default_scenes() -> list[Scene]:
    """Return what takes less than 25 minutes on two cores."""
    return [
        Scene("local", 792, "launch", "cpu", 2, 4),
        Scene("local", 792, "compute", "cpu", 1, 3, _BEST),
        Scene("local", 100, "launch", "cpu", 2, 4),
        Scene("local", 2000, "launch", "cpu", 1, 3, _BEST),
        Scene("tmpfs", 792, "launch", "cpu", 1, 3, _BEST),
        Scene("s3", 200, "launch", "cpu", 1, 3, _REMOTE),
        Scene("slow-s3", 100, "launch", "cpu", 1, 3, _REMOTE),
        Scene("local", 10_000, "compute", "cuda", 1, 3, _BEST),
        Scene("local", 10_000, "launch", "cuda", 1, 3, _BEST),
    ]


def quick_scenes() -> list[Scene]:
    """Return what takes less than three minutes on two cores."""
    return [
        Scene("local", 100, "launch", "cpu", 1, 3),
        Scene(
            "s3", 100, "launch", "cpu", 1, 3, (OURS, "torch.save", "DCP async_save, cached staging", FLOOR)
        ),
        Scene(
            "local", 1000, "compute", "cuda", 1, 3, (OURS, OVERLAPPED, "DCP async_save, async staging", FLOOR)
        ),
    ]
