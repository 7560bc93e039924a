"""What ranks do in the tests of whole sharded saves: save again and again, until a fault ends one of them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch._C._distributed_c10d import TCPStore

from asynchooks import distributed
from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    KeepLast,
    Party,
    Planning,
    ShardSnapshot,
    capture_shards,
    open_store,
    plan_shards,
)
from asynchooks.distributed import Rendezvous
from asynchooks.errors import AsyncHooksError
from asynchooks.instrument import Span
from asynchooks.testing import Fault, FaultyStore

DEADLINE_S = 1.0
SAVES = {1: "iter_1", 2: "iter_2", 3: "iter_2", 4: "iter_4"}
"""Name by step. The third replaces the second, and the first is pruned then."""
HIT = 3
LAST_NAME = SAVES[HIT]


def state(step: int) -> dict[str, Any]:
    """A state of several tensors, which the ranks share out, and an object."""
    return {
        "state_dict": {f"layer{n}.weight": torch.full((50, 20), float(100 * step + n)) for n in range(6)},
        "meta": {"iter": step},
    }


def die() -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


@dataclass
class Ends:
    """An instrument that kills its process when a span of this kind has ended."""

    kind: str = ""

    def record(self, span: Span) -> None:
        """See the span."""
        if span.kind == self.kind:
            die()

    def count(self, name: str, amount: int = 1) -> None:
        """See nothing."""


@dataclass
class Saver:
    """One rank's: saves steps, with everybody."""

    rank: int
    folder: str
    deadline_s: float = DEADLINE_S
    store_deadline_s: float = 120.0
    faults: list[Fault] = field(default_factory=list)
    ends: Ends = field(default_factory=Ends)
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    first_has_store: bool = False

    def __post_init__(self) -> None:
        session = distributed.broadcast_object(uuid.uuid4().hex)
        self.meeting = self._opened(session)
        self.store = FaultyStore(open_store(self.folder, self.storage_options), self.faults)
        self.planning = Planning(self.rank, distributed)
        self.checkpointer = Checkpointer(
            self.store,
            run_id="run",
            party=Party(self.meeting, session),
            instrument=self.ends,
            deadline_s=self.store_deadline_s,
        )

    def _opened(self, session: str) -> Rendezvous:
        """Meet through the store of the process group, or through one that the first rank holds."""
        if not self.first_has_store:
            return distributed.open_rendezvous(f"saves/{session}", deadline_s=self.deadline_s)
        own = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if self.rank == 0 else None
        port = distributed.broadcast_object(0 if own is None else own.port)
        return Rendezvous(
            own or TCPStore("127.0.0.1", port),
            rank=self.rank,
            world_size=distributed.world_size(),
            name=session,
            deadline_s=self.deadline_s,
        )

    def captured(self, step: int) -> ShardSnapshot:
        return capture_shards(plan_shards(state(step), self.planning))

    def save(self, step: int, **options: Any) -> CheckpointInfo:
        return self.checkpointer.save_sync(
            self.captured(step),
            **{"name": SAVES[step], "step": step, "pointer": "last", "keep": KeepLast(1), **options},
        )

    def told_of(self, step: int, **options: Any) -> tuple[str, float]:
        """Save; return what the rank is told of it, and after how long."""
        start_s = time.monotonic()
        try:
            told = f"saved {self.save(step, **options).step}"
        except AsyncHooksError as error:
            told = f"{type(error).__name__}({getattr(error, 'rank', None)}): {error}"
        return told, time.monotonic() - start_s
