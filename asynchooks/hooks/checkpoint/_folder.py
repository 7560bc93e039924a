"""The folder of one run's checkpoints: what is saved there, in which order, and what is published at the end.

Glue between the hook and the checkpoint package, which does the work. What runs in the background here is never
called twice at once: the executor runs the parts of one hook one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    Content,
    KeepLast,
    Party,
    ShardSnapshot,
    Snapshot,
    Store,
    list_checkpoints,
    open_store,
)
from asynchooks.distributed import is_first_rank
from asynchooks.errors import CheckpointError
from asynchooks.execution import current_executor

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.hooks.checkpoint._best import Best
    from asynchooks.hooks.checkpoint._books import Claim

__all__ = ["Folder", "Save"]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint to be saved.

    Attributes:
        name: file name.
        snapshot: what is in it.
        meta: "epoch" and "iter" that are done.
        claim: what the message hub says of it already.
        keep: how many of its kind are kept; -1 for all.
        best: the metric of which it is the best; None for a checkpoint of the interval.
        metrics: what the validation measured.
    """

    name: str
    snapshot: Snapshot | ShardSnapshot
    meta: Mapping[str, int]
    claim: Claim
    keep: int = -1
    best: Best | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Folder:
    """Where a run's checkpoints go.

    Args:
        store: the folder.
        run_id: the run, which a resumed run continues.
        deadline_s: longest time without progress of any call to the store.
        party: the ranks that save shards into it together; None where one process saves.
        named_in: folder of the run, in which a pointer names the last checkpoint too; None where that is this one.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        deadline_s: float,
        party: Party | None = None,
        named_in: str | None = None,
    ) -> None:
        self._named_in = named_in
        self._party = party
        self._store = store
        self._run_id = run_id
        executor = current_executor()
        instrument = None if executor is None else executor.instrument
        self._checkpointer = Checkpointer(
            store,
            run_id=run_id,
            instrument=instrument,
            deadline_s=deadline_s,
            party=party,
        )

    def check(self) -> None:
        """Raise unless the store takes files. Blocks; called once, before there is anything to lose.

        In a thread of its own: the training thread may have an event loop already, as in a notebook.
        """
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._checkpointer.check_sync).result()

    async def release(self) -> None:
        """Let other runs have the folder. A store that refuses costs the next run a warning, not this one its end."""
        if self._party is not None:
            await anyio.to_thread.run_sync(self._party.meeting.close)
        if not is_first_rank():
            return
        try:
            await self._checkpointer.release()
        except CheckpointError as error:
            logger.warning("could not release %s: %s", self._store.url, error)

    def close(self) -> None:
        """`release`, when nothing runs in the background any more. Blocks; this thread may have an event loop."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(anyio.run, self.release).result()

    def url_of(self, name: str) -> str:
        """Return the address of a checkpoint, as it will be once it is saved."""
        return f"{self._store.url.rstrip('/')}/{name}"

    def committed(self) -> list[CheckpointInfo]:
        """Return this run's committed checkpoints, oldest first. Blocks."""
        infos = list_checkpoints(self._store)
        return [info for info in infos if info.run_id == self._run_id]

    def committing(self, runner: Any, saves: Sequence[Save]) -> BackgroundPart:
        """Return the background part that saves and tells the listeners, one checkpoint after the other."""
        executor = current_executor()

        async def commit() -> None:
            try:
                for save in saves:
                    info = await self._save(save)
                    if save.best is None:
                        runner.last_committed = info.url
                    if executor is not None:
                        meta = {**save.meta, "metrics": dict(save.metrics), "nbytes": info.nbytes}
                        executor.fire_nowait("after_save_checkpoint", runner, path=info.url, meta=meta)
            finally:
                for save in saves:
                    save.claim.end()

        for save in saves:
            save.claim.hang_on(commit)
        return commit

    async def _save(self, save: Save) -> CheckpointInfo:
        place: dict[str, Any] = {
            "name": save.name,
            "step": save.meta["iter"],
            "epoch": save.meta["epoch"],
            "metrics": save.metrics,
            "on_commit": save.claim.keep,
        }
        if save.best is not None:
            return await self._checkpointer.save(
                save.snapshot, **place, group=save.best.prefix, pointer="best", keep=KeepLast(1)
            )
        keep = KeepLast(save.keep) if save.keep > 0 else None
        info = await self._checkpointer.save(save.snapshot, **place, pointer="last", keep=keep)
        if self._named_in is not None and is_first_rank():
            await anyio.to_thread.run_sync(_name_in, self._named_in, info.url)
        return info


def _name_in(folder: str, url: str) -> None:
    """Write MMEngine's pointer into the run's own folder, for whoever looks for the run there."""
    try:
        open_store(folder).put("last_checkpoint", Content.of(url.encode()))
    except CheckpointError as error:  # the checkpoint is there, and found without it
        logger.warning("could not name %s in %s: %s", url, folder, error)
