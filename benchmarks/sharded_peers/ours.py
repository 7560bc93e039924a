"""asynchooks: each rank copies what it will write and trains on; a hook persists and commits behind it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from peers.contender import Pending

from asynchooks import distributed
from asynchooks.checkpoint import (
    Checkpointer,
    Party,
    PlannedState,
    Planning,
    ShardSnapshot,
    before_step,
    capture_shards,
    plan_shards,
    prepare_capture,
)
from asynchooks.execution import Effects, Hook, HookExecutor, background
from sharded_peers.saving import Saver

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart
    from sharded_peers.case import Scene

__all__ = ["Ours", "OursAtOnce", "OursInline"]


class _Saving(Hook):
    effects = Effects(writes={"checkpoints"})

    def __init__(self, saves: Checkpointer, take: Callable[[Any], ShardSnapshot]) -> None:
        self._saves = saves
        self._take = take

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        if outputs is None:
            return None
        state, pending = outputs
        shards = self._take(state)

        async def commit() -> None:
            try:
                await self._saves.save(shards, name=f"iter_{batch_idx}", step=batch_idx)
            except BaseException as error:
                pending.end(error)
                raise
            pending.end()

        return commit


class Ours(Saver):
    """As it comes: the copy goes on beside training, until the next update."""

    title = "asynchooks"
    note = "a copy of what this rank will write alone, in memory that stays; the rest is done behind it"
    mode: ClassVar[Literal["async", "sync"]] = "async"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._planning = Planning(distributed.rank(), distributed)
        self._meeting: Any = None
        self._executor: HookExecutor | None = None

    def open(self, state: dict[str, Any]) -> None:
        make_memory = prepare_capture(dict(plan_shards(state, self._planning).parts))
        if make_memory is not None:
            make_memory()  # `CheckpointHook` does so in a thread, beside the first steps
        self._meeting = distributed.open_rendezvous("benchmark")
        party = Party(self._meeting, distributed.broadcast_object(uuid.uuid4().hex))
        saves = Checkpointer(self.scene.url, storage_options=dict(self.scene.options), party=party)
        self._executor = HookExecutor([_Saving(saves, self._take)], mode=self.mode)
        self._executor.__enter__()
        self._fire(0)

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = Pending()
        self._fire(step, (state, pending))
        return pending

    def before_update(self) -> None:
        before_step()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.__exit__(None, None, None)
        if self._meeting is not None:
            self._meeting.close()

    def _take(self, state: Any) -> ShardSnapshot:
        planned = plan_shards(state, self._planning)
        return capture_shards(planned, overlap=self._later(planned))

    def _later(self, planned: PlannedState) -> list[torch.Tensor]:
        return [part for part in planned.parts.values() if isinstance(part, torch.Tensor)]

    def _fire(self, step: int, outputs: Any = None) -> None:
        assert self._executor is not None
        self._executor.fire("after_train_iter", None, batch_idx=step, data_batch=None, outputs=outputs)


class OursAtOnce(Ours):
    """The copy is finished when the call returns."""

    title = "asynchooks, overlap=False"
    note = "the copy holds the call instead of the next update"

    def _later(self, planned: PlannedState) -> list[torch.Tensor]:
        return []


class OursInline(Ours):
    """Training stands still until the checkpoint is committed, as with `dcp.save`."""

    title = 'asynchooks, mode="sync"'
    note = "plans on the training thread, which then waits until all ranks have written and the first has committed"
    mode = "sync"
