"""The stations of a save in their order: serialize, persist, commit, point, prune.

Decides the order and what depends on what; every station's own rules live in its module. Knows no hook.
"""

from __future__ import annotations

import logging
import platform
import time
import uuid
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import torch

from asynchooks import _version
from asynchooks.checkpoint._capture._staging import shared_staging
from asynchooks.checkpoint._catalog import committed, url_of
from asynchooks.checkpoint._commit import (
    check_layout,
    give_up,
    metadata_file,
    point,
    publish,
    publish_sharded,
    settle,
    withdraw,
)
from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest, SavedAs
from asynchooks.checkpoint._ownership import Ownership
from asynchooks.checkpoint._persist import Persist
from asynchooks.checkpoint._prune import judge_in, remove_judged
from asynchooks.checkpoint._report import Report
from asynchooks.checkpoint._request import Request, at_step, behind_commit, checked
from asynchooks.checkpoint._serialize import Serialized, serialize
from asynchooks.checkpoint._storage import Stopped, Store, WriterChoice, nothing, open_store
from asynchooks.checkpoint._transfer import Transfer
from asynchooks.checkpoint._turns import Turns
from asynchooks.errors import CheckpointError, ConfigError
from asynchooks.instrument import Instrument, Span, SpanKind

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from asynchooks.checkpoint._capture._capture import Snapshot
    from asynchooks.checkpoint._files import File
    from asynchooks.checkpoint._retention import RetentionPolicy
    from asynchooks.checkpoint._sharded._saving import Party, Place
    from asynchooks.checkpoint._sharded._snapshot import ShardSnapshot
    from asynchooks.checkpoint._storage import Entry, Progress

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)

_DEADLINE_S = 120.0


class Checkpointer:
    """Saves snapshots into one folder of a store, one at a time, on whatever event loops and threads it is called.

    Making one opens no connection; `check` finds out early whether the store takes writes.

    Args:
        url: the folder: a path, a URL that fsspec knows, or a `Store`.
        storage_options: fsspec's for the URL's protocol; what they leave open comes from the environment.
        run_id: the run that saves. A resumed run goes on under the id of the checkpoint that it resumed from
            (`CheckpointInfo.run_id`), so that its retention goes on too. A new id by default.
        instrument: is told of the persist, commit and prune spans.
        deadline_s: longest time without progress of any call to the store, after which it fails.
        writer: what writes the data, a "thread" or a "process"; None for what was measured to be best for the store.
        party: the ranks that save shards together, each with a checkpointer of its own; None for this process alone.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        storage_options: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        instrument: Instrument | None = None,
        deadline_s: float = _DEADLINE_S,
        writer: WriterChoice | None = None,
        party: Party | None = None,
    ) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s is a number of seconds above 0, not {deadline_s!r}")
        self._store = open_store(url, storage_options, deadline_s=deadline_s, writer=writer)
        if getattr(self._store, "writes_from_shared_memory", False):
            shared_staging().share()
        self._run_id = run_id or uuid.uuid4().hex
        self._ownership = Ownership(self._store, self._run_id)
        self._instrument = instrument
        self._deadline_s = deadline_s
        self._turns = Turns()
        self._report = Report(self._store)
        self._known: dict[str, tuple[Entry, Manifest]] = {}
        self._party = party
        self._created_ns = 0

    @property
    def url(self) -> str:
        """The folder, without credentials."""
        return self._store.url

    @property
    def run_id(self) -> str:
        """The id under which this checkpointer saves and prunes."""
        return self._run_id

    async def save(
        self,
        snapshot: Snapshot | ShardSnapshot,
        *,
        name: str,
        step: int,
        epoch: int | None = None,
        metrics: Mapping[str, float] | None = None,
        pointer: SavedAs | None = None,
        keep: RetentionPolicy | None = None,
        group: str | None = None,
        on_commit: Callable[[], None] = nothing,
    ) -> CheckpointInfo:
        """Serialize, persist, commit; then set the pointer; then prune. Called on an event loop.

        Cancelled before the data is visible, it gives up promptly and leaves nothing; after that it first
        finishes the commit and the pointer. When it returns, the checkpoint is durable.

        Args: snapshot: what `capture` returned; its state must be a dict. Or what `capture_shards` did: then every
            rank saves its own, with the same arguments, and the first one commits; `name` is a folder's. name: file
            name in the folder. A committed checkpoint of that name is replaced, whole at every instant. step:
            training steps done. epoch: epochs done, where the loop counts them. metrics: numbers that retention may
            choose by. pointer: also name it in ``last_checkpoint`` or ``best_checkpoint``. keep: then delete what
            this policy does not keep, of this run and group; None deletes nothing. group: what retention compares
            it with: by default what was saved with the same pointer (None: last). on_commit: called at once on a
            worker thread where it is committed, before pointer and pruning; must not raise.

        Raises: StorageError: it was not committed; the message says the URL, the step, the attempts and what
            to do. When only the pointer or the pruning failed, a note on the error says that the checkpoint
            is committed. CheckpointConflictError: another process writes to this folder; nothing of this save
            is visible. RankFailedError, RankLostError: another rank could not write its shards, or died.
            ConfigError: shards of more or fewer ranks than the party's.
        """
        request = checked(snapshot, name, step, epoch, metrics, pointer, keep, group, on_commit)
        save = partial(self._save, request)
        async with AsyncExitStack() as stack:
            if request.snapshot.layout == "sharded":
                place = self._place(request, cast("ShardSnapshot", snapshot).plan.world_size)
                save = partial(self._save_shards, request, await stack.enter_async_context(place))
            await stack.enter_async_context(self._turns.take())
            transfer = Transfer(
                f"saving {url_of(self._store, name)} (step {step})", deadline_s=self._deadline_s
            )
            try:
                return await transfer.run(partial(save, transfer))
            except CheckpointError as error:
                raise at_step(error, request) from error.__cause__

    def save_sync(self, snapshot: Snapshot | ShardSnapshot, **options: Any) -> CheckpointInfo:
        """`save` for a script without an event loop; blocks until the checkpoint is durable."""
        return anyio.run(partial(self.save, snapshot, **options))

    async def check(self) -> None:
        """Write, list and delete a probe, and claim the folder: what is wrong fails now, not at the first save.

        Raises:
            StorageError: the store cannot be reached or refuses.
            CheckpointNotFoundError: the bucket does not exist.
            CheckpointConflictError: another process writes to this folder.
        """
        await self._in_turn(f"checking {self.url}", self._ownership.probe, self._ownership.claim)

    def check_sync(self) -> None:
        """`check` for a script without an event loop."""
        anyio.run(self.check)

    async def release(self) -> None:
        """Say that this run is done with the folder, so that the next one there is not warned of it.

        Until then, or the end of the process, other runs are kept off where the store can. A later save claims the
        folder again.

        Raises:
            StorageError: the store refuses; the next run in the folder will be warned.
        """
        await self._in_turn(f"releasing {self.url}", self._ownership.release)

    def release_sync(self) -> None:
        """`release` for a script without an event loop."""
        anyio.run(self.release)

    async def _in_turn(self, what: str, *steps: Callable[[], None]) -> None:
        transfer = Transfer(what, deadline_s=self._deadline_s)

        async def take_all() -> None:
            for step in steps:
                await transfer.call(step, stoppable=True)

        async with self._turns.take():
            await transfer.run(take_all)

    async def _save(self, request: Request, transfer: Transfer) -> CheckpointInfo:
        await transfer.call(self._ownership.claim, stoppable=True)
        draft, serialized = await transfer.call(partial(self._prepare, request), stoppable=True)
        with self._span("persist", request.step, request.name, serialized.content.nbytes):
            manifest = await self._persist(draft, serialized, transfer)
        with self._span("commit", request.step, request.name, manifest.nbytes):
            await transfer.call(
                partial(publish, self._store, manifest, on_commit=request.on_commit, progress=transfer.moved)
            )
        info = self._report.tell(request, manifest)
        with behind_commit(info):
            if request.pointer is not None:
                await transfer.call(
                    partial(point, self._store, request.pointer, manifest.name, progress=transfer.moved)
                )
            if request.keep is not None:
                with self._span("prune", request.step, request.name, manifest.nbytes):
                    await transfer.call(
                        partial(self._prune, request.keep, manifest, transfer.progress), stoppable=True
                    )
        return info

    def _place(self, request: Request, world_size: int) -> AbstractAsyncContextManager[Place]:
        """This save's place among those of the party, from now on."""
        from asynchooks.checkpoint._sharded._saving import Party

        self._party = self._party or Party.alone()
        if self._party.meeting.world_size != world_size:
            raise ConfigError(
                f"step {request.step}: {request.name} is planned for {world_size} ranks, and this Checkpointer saves "
                f"with {self._party.meeting.world_size}: give Checkpointer(party=Party(...)), of all ranks."
            )
        return self._party.place(f"step {request.step}: {url_of(self._store, request.name)}")

    async def _save_shards(self, request: Request, place: Place, transfer: Transfer) -> CheckpointInfo:
        from asynchooks.checkpoint._sharded._saving import take_part

        part = partial(
            take_part,
            place,
            self._store,
            cast("ShardSnapshot", request.snapshot),
            name=request.name,
            progress=transfer.progress,
            span=partial(self._span, "persist", request.step, request.name),
            claim=self._ownership.claim,
            commit=partial(self._commit_shards, request, transfer),
            decided=transfer.be_patient,
        )
        told = await transfer.call(part, stoppable=True, left_behind=place.party.give_up)
        return CheckpointInfo.from_json(told)

    def _commit_shards(
        self, request: Request, transfer: Transfer, files: Sequence[File], metadata: bytes, save_id: str
    ) -> bytes:
        """Make a checkpoint of all ranks' data files, which are durable. Worker thread of the first rank."""
        nfiles = len(files) + 1
        draft = replace(self._draft(request, save_id), world_size=len(files))
        manifest = replace(draft, files=(*files, metadata_file(metadata, nfiles=nfiles)))

        def before_visible() -> None:
            transfer.moved(1)
            self._ownership.renew(request.step)
            transfer.moved(1)

        transfer.must_finish()
        with self._span("commit", request.step, request.name, manifest.nbytes):
            check_layout(self._store, request.name, "sharded")
            transfer.moved(1)
            replaced = settle(self._store, request.name, progress=transfer.moved)
            try:
                publish_sharded(
                    self._store,
                    manifest,
                    metadata,
                    replaced,
                    before_visible=before_visible,
                    on_commit=request.on_commit,
                    progress=transfer.moved,
                )
            except CheckpointError:
                if not transfer.has_abandoned:  # else what stands there may be a later save's
                    give_up(self._store, manifest)
                raise
        info = self._report.tell(request, manifest)
        with behind_commit(info):
            if request.pointer is not None:
                point(self._store, request.pointer, manifest.name, progress=transfer.moved)
            if request.keep is not None:
                with self._span("prune", request.step, request.name, manifest.nbytes):
                    self._prune(request.keep, manifest, transfer.moved)
        return info.to_json()

    def _prepare(self, request: Request) -> tuple[Manifest, Serialized]:
        """The file's bytes where they lie, and what is known of them without reading them."""
        save_id = uuid.uuid4().hex
        serialized = serialize(cast("Snapshot", request.snapshot), save_id)
        request.snapshot.wait()  # an overlapped copy may still be under way
        return self._draft(request, save_id), serialized

    def _draft(self, request: Request, save_id: str) -> Manifest:
        """The manifest without what is only known when the data is there."""
        there_ns = 0
        if not self._created_ns:  # what is saved now is newer than all that is there, whatever clocks said
            there_ns = max((manifest.created_ns for manifest in self._committed()), default=0)
        self._created_ns = max(time.time_ns(), there_ns + 1, self._created_ns + 1)
        return Manifest(
            name=request.name,
            step=request.step,
            epoch=request.epoch,
            metrics=request.metrics,
            chunks=(),
            tensors="",
            created_ns=self._created_ns,
            run_id=self._run_id,
            save_id=save_id,
            group=request.group,
            saved_as=request.pointer,
            versions={
                "asynchooks": _version.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        )

    async def _persist(self, draft: Manifest, serialized: Serialized, transfer: Transfer) -> Manifest:
        persist = Persist(
            self._store, draft, serialized, renew_claim=partial(self._ownership.renew, draft.step)
        )
        try:
            manifest = await transfer.call(partial(persist.run, transfer.progress), stoppable=True)
        except (CheckpointError, Stopped):
            if transfer.has_abandoned or not persist.has_announced:
                raise  # abandoned: the data may still appear; then the next manifest lets `sweep` prove what it is
            try:
                await transfer.call(partial(withdraw, self._store, draft))
            except CheckpointError as error:  # a store that is down; the other failure is the one to report
                logger.debug("could not withdraw the next manifest of %s: %s", draft.name, error)
            raise
        if self._instrument is not None:
            self._instrument.count("checkpoint.bytes", manifest.nbytes)
        return manifest

    def _committed(self) -> list[Manifest]:
        known = dict(self._known)  # a call that was left behind may still be at its own
        found = committed(self._store, known=known)
        self._known = known
        return found

    def _prune(self, policy: RetentionPolicy, saved: Manifest, progress: Progress) -> None:
        """Delete what may go. Called on a worker thread, after `saved` is committed and pointed to."""
        manifests = self._committed()
        progress(1)
        self._created_ns = max(self._created_ns, *(manifest.created_ns for manifest in manifests))
        mine = [
            manifest
            for manifest in manifests
            if manifest.run_id == self._run_id and manifest.group == saved.group
        ]
        verdicts = judge_in(self._store, policy, mine, protected={saved.name: "just saved"})
        for info in remove_judged(self._store, mine, verdicts, progress=progress):
            logger.info("step %d: pruned %s", saved.step, info.url)
            progress(1)

    @contextmanager
    def _span(self, kind: SpanKind, step: int, name: str, nbytes: int) -> Iterator[None]:
        start_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            if self._instrument is not None:
                self._instrument.record(
                    Span(
                        kind=kind,
                        hook="checkpointer",
                        point="",
                        start_ns=start_ns,
                        end_ns=time.perf_counter_ns(),
                        step=step,
                        detail={"name": name, "bytes": nbytes},
                    )
                )
