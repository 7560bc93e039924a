"""A writer for ``torch.distributed.checkpoint.save``, and the two steps that it shares with saves of the background.

Decides that data files have names of their own save, so that nothing that exists is overwritten, and that
`.metadata`, which makes them count, comes last.
"""

from __future__ import annotations

import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from asynchooks.checkpoint._content import Content, checksum
from asynchooks.checkpoint._files import METADATA, File, chunk_bytes_for, chunk_lengths
from asynchooks.checkpoint._sharded._items import data_file, data_name, starts_of
from asynchooks.checkpoint._storage import open_store, unlimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner

    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["ShardWriter", "encode_metadata", "write_file"]

_VERSION = "1.0.0"  # of DCP's format


class ShardWriter(StorageWriter):
    """Writes a sharded checkpoint for ``dcp.save(state, storage_writer=ShardWriter("s3://bucket/run/iter_1000"))``.

    Plain ``dcp.load`` reads it. Used on the thread that calls ``save``, which it blocks. What replaces a checkpoint
    of the same folder leaves the old one's data files there.

    Args:
        url: the checkpoint's folder, or a `Store` that is that folder.
        storage_options: fsspec's, as in `Checkpointer`.
        progress: told how many more bytes the store has taken.

    Raises:
        CheckpointError: from ``save``, which wraps it in its own `CheckpointException` where a group is there.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress = unlimited,
    ) -> None:
        self._options = storage_options
        self._progress = progress
        self._store = open_store(url, storage_options)
        self.save_id = uuid.uuid4().hex

    @property
    def checkpoint_id(self) -> str:
        """The folder."""
        return self._store.url

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin another save, into another folder where one is given."""
        if checkpoint_id:
            self._store = open_store(checkpoint_id, self._options)
        self.save_id = uuid.uuid4().hex

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:  # noqa: FBT001 - DCP's
        """Nothing to do: the plan says which rank writes."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Give every rank the name of its file, which holds the first rank's save id."""
        names = (data_name(rank, self.save_id) for rank in range(len(plans)))
        return [replace(plan, storage_data=name) for plan, name in zip(plans, names, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's file."""
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._write(plan, planner) if plan.items else [])
        return done

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        items: list[Any] = []
        for item in plan.items:
            value: Any = planner.resolve_data(item)
            is_object = item.type == WriteItemType.BYTE_IO
            items.append(value.getvalue() if is_object else value.detach().cpu())
        file = data_file(items)
        name: str = plan.storage_data
        write_file(self._store, name, file.content, nfiles=1, progress=self._progress)
        places = zip(plan.items, starts_of(file.lengths), file.lengths, strict=True)
        return [
            WriteResult(item.index, length, _StorageInfo(name, start, length))
            for item, start, length in places
        ]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write `.metadata`: from now on the checkpoint is there."""
        places = {result.index: result.storage_data for each in results for result in each}
        text = encode_metadata(metadata, places, checkpoint_id=self.checkpoint_id, save_id=self.save_id)
        write_file(self._store, METADATA, Content.of(text), nfiles=1, progress=self._progress)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any URL may be one."""
        return bool(os.fspath(checkpoint_id))

    def storage_meta(self) -> StorageMeta:
        """What `.metadata` says of the save."""
        return StorageMeta(checkpoint_id=self.checkpoint_id, save_id=self.save_id)


def write_file(
    store: Store, name: str, content: Content, *, nfiles: int, progress: Progress = unlimited
) -> File:
    """Put a file of a folder, and sum it meanwhile on a thread of its own. Worker thread.

    Args:
        store: the folder.
        name: of the file.
        content: its bytes.
        nfiles: about how many files the checkpoint has; decides how long its chunks are.
        progress: told how many more bytes the store has taken; what it raises stops the transfer.
    """
    chunk_bytes = chunk_bytes_for(content.nbytes, nfiles=nfiles)
    with ThreadPoolExecutor(1, "asynchooks-checksum") as thread:
        summed = thread.submit(checksum, content, chunk_lengths(content.nbytes, chunk_bytes))
        store.put(name, content, progress=progress)
        return File.of(name, summed.result(), chunk_bytes)


def encode_metadata(
    metadata: Metadata, places: Mapping[Any, _StorageInfo], *, checkpoint_id: str, save_id: str
) -> bytes:
    """The bytes of `.metadata`, as DCP writes them, with the places of all items."""
    whole = replace(
        metadata,
        storage_data=dict(places),
        storage_meta=StorageMeta(checkpoint_id=checkpoint_id, save_id=save_id),
    )
    whole.version = _VERSION  # a field since torch 2.7
    return pickle.dumps(whole)
