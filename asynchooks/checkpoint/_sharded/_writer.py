"""A writer for ``torch.distributed.checkpoint.save``: any store, in the layout of saves of the background.

Decides that data files have names of their own save, so that nothing that exists is overwritten, and that
`.metadata`, which makes them count, comes last. Knows no manifest: what it writes is DCP's alone.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.planner import WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._files import METADATA
from asynchooks.checkpoint._sharded._datafile import data_name
from asynchooks.checkpoint._sharded._layout import lay_out, plain, starts_of
from asynchooks.checkpoint._sharded._metadata import encode_metadata, with_places
from asynchooks.checkpoint._storage import open_store, unlimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner

    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["ShardWriter"]


class ShardWriter(StorageWriter):
    """Writes a sharded checkpoint for ``dcp.save(state, storage_writer=ShardWriter("s3://bucket/run/iter_1000"))``.

    Plain ``dcp.load`` reads it, and so does `restore`, unverified: there is no manifest, so that it is no checkpoint
    to list, resume from or prune. For those, and for saves that do not block, there are the `Checkpointer` and the
    checkpoint hook. Used on the thread that calls ``save``, which it blocks. What replaces a checkpoint of the same
    folder leaves the old one's data files there.

    Args:
        url: the checkpoint's folder, or a `Store` that is that folder.
        storage_options: fsspec's, as in `Checkpointer`.
        progress: told how many more bytes the store has taken; what it raises stops the transfer.

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

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Turn to another folder if one is named."""
        if checkpoint_id:
            self._store = open_store(checkpoint_id, self._options)

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:  # noqa: FBT001 - DCP's
        """Nothing to do: the plan says which rank writes."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Give every rank the name of its file, which holds an id of this save: DCP may not tell when one begins."""
        save_id = uuid.uuid4().hex
        return [replace(plan, storage_data=data_name(rank, save_id)) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's file; durable when it returns."""
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._write(plan, planner) if plan.items else [])
        return done

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        tensors: dict[MetadataIndex, torch.Tensor] = {}
        objects: dict[MetadataIndex, bytes] = {}
        for item in plan.items:
            value: Any = planner.resolve_data(item)
            if item.type is WriteItemType.BYTE_IO:
                objects[item.index] = value.getvalue()
            else:
                tensors[item.index] = plain(item.index.fqn, value.detach().cpu())
        content, lengths = lay_out(tensors.values(), [*objects.values()])
        name: str = plan.storage_data
        self._store.put(name, content, progress=self._progress)
        starts = starts_of(lengths, ntensors=len(tensors))
        return [
            WriteResult(index, length, _StorageInfo(name, start, length))
            for index, start, length in zip([*tensors, *objects], starts, lengths, strict=True)
        ]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write `.metadata`: from now on the checkpoint is there."""
        places = {result.index: result.storage_data for each in results for result in each}
        content = Content.of(encode_metadata(with_places(metadata, places)))
        self._store.put(METADATA, content, progress=self._progress)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any URL may be one."""
        return bool(os.fspath(checkpoint_id))

    def storage_meta(self) -> StorageMeta:
        """What DCP's planners are told of the save."""
        return StorageMeta(checkpoint_id=self._store.url)
