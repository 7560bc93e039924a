"""asynchooks as a user has it: a hook with a background part, in an executor, with a checkpointer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asynchooks.checkpoint import Checkpointer, Snapshot, before_step, capture, list_checkpoints, restore
from asynchooks.execution import Effects, Hook, HookExecutor, background
from asynchooks.instrument import Span
from peers.contender import Contender, Pending, Place
from peers.workload import named_tensors

__all__ = ["Ours", "OursOverlapped"]


class _Watching:
    """An instrument that tells when a checkpoint is committed, and how long its stations took."""

    def __init__(self) -> None:
        self.pending: Pending | None = None

    def record(self, span: Span) -> None:
        if self.pending is None:
            return
        if span.kind in ("persist", "commit", "capture"):
            self.pending.parts[f"{span.kind}_s"] = (span.end_ns - span.start_ns) / 1e9
        if span.kind == "commit":
            self.pending.claim()

    def count(self, name: str, amount: int = 1) -> None:
        del name, amount


class _Saving(Hook):
    effects = Effects(writes={"checkpoints"})

    def __init__(self, saves: Checkpointer, take: Callable[[Any], Snapshot]) -> None:
        self._saves = saves
        self._take = take

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> Any:
        pending, name, step = runner.pending, runner.name, batch_idx
        if pending is None:
            return None
        start = time.perf_counter()
        snapshot = self._take(runner.state)
        pending.parts["capture_s"] = time.perf_counter() - start

        async def commit() -> None:
            try:
                await self._saves.save(snapshot, name=name, step=step)
            except BaseException as error:
                pending.end(error)
                raise
            pending.end()

        return commit


class Ours(Contender):
    """`capture`, `Checkpointer.save`: fsync, rename, a manifest with checksums of every chunk."""

    syncs = True
    loads_remotely = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._watching = _Watching()
        self._context = SimpleNamespace(pending=None, state=None, name="")
        self._saves: Checkpointer | None = None
        self._executor: HookExecutor | None = None

    def open(self, state: dict[str, Any]) -> None:
        saves = Checkpointer(
            self.place.url, storage_options=self.place.options or None, instrument=self._watching
        )
        saves.check_sync()  # as the checkpoint hook does before training; the folder is this run's from then on
        self._saves = saves
        self._executor = HookExecutor([_Saving(saves, self._take)])
        self._executor.__enter__()
        self._context.state = state

    def save(self, state: dict[str, Any], step: int) -> Pending:
        pending = self._context.pending = self._watching.pending = Pending()
        self._context.name = self.name_of(step)
        self._fire(step)
        self._context.pending = None
        return pending

    def after_step(self) -> None:
        self._fire(0)

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        found = list_checkpoints(self.place.url, storage_options=self.place.options or None)
        if not found or found[-1].step != step:  # oldest first
            raise ValueError(f"the newest checkpoint should be of step {step}; there are {found}")
        return restore(self.place.at(self.name_of(step)), storage_options=self.place.options or None)

    def files(self, step: int) -> list[Path]:
        return []

    def close(self) -> None:
        if self._executor is not None:
            self._executor.__exit__(None, None, None)
        if self._saves is not None:
            self._saves.release_sync()

    def _take(self, state: Any) -> Snapshot:
        return capture(state)

    def _fire(self, step: int) -> None:
        if self._executor is not None:
            self._executor.fire("after_train_iter", self._context, batch_idx=step)


class OursOverlapped(Ours):
    """The same, copying while training goes on until the next update; a torch optimizer would wait by itself."""

    def updating(self) -> AbstractContextManager[object]:
        before_step()
        return nullcontext()

    def _take(self, state: Any) -> Snapshot:
        return capture(state, overlap=[tensor for _, tensor in named_tensors(state)])
