"""A reader for ``torch.distributed.checkpoint.load``: any store, many reads at once, nothing that runs code.

Decides nothing but what DCP's plan becomes in terms of `read_wanted`.
"""

from __future__ import annotations

import io
import os
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from asynchooks.checkpoint._sharded._filling import ObjectWanted, TensorWanted, read_wanted
from asynchooks.checkpoint._sharded._folder import Folder, check_whole, find_folder
from asynchooks.checkpoint._storage import unlimited
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem

    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["ShardReader", "place_of", "tensor_wanted"]


class ShardReader(StorageReader):
    """Reads a sharded checkpoint for ``dcp.load(state, storage_reader=ShardReader("s3://bucket/run/iter_1000"))``.

    Only what the plan needs is read, straight into the tensors where they lie as in the file. With a manifest beside
    the folder every chunk that is read is compared with it; without one, a warning in the log says so. Of what
    `.metadata` and the objects hold, nothing runs code. Used on the thread that calls ``load``, which it blocks.

    Args:
        url: the checkpoint's folder; a `Store` that is that folder is read without a manifest.
        storage_options: fsspec's, as in `Checkpointer`.
        weights_only: False lets objects run any code when they load: only for checkpoints that you trust.
        progress: told how many more bytes were read, on reading threads; what it raises stops the reading.

    Raises:
        CheckpointError: from ``load``, which wraps it in its own `CheckpointException` where a group is there.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Store,
        *,
        storage_options: Mapping[str, Any] | None = None,
        weights_only: bool = True,
        progress: Progress = unlimited,
    ) -> None:
        super().__init__()
        self._url = url
        self._storage_options = storage_options
        self._weights_only = weights_only
        self._progress = progress
        self._folder: Folder | None = None
        self._metadata: Metadata | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Any URL may be one."""
        return bool(checkpoint_id)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin anew, with another checkpoint if one is named."""
        self._folder = self._metadata = None
        if checkpoint_id:
            self._url = checkpoint_id

    def read_metadata(self) -> Metadata:
        """What the checkpoint says of itself, checked."""
        metadata = self._looked().metadata()
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = str(uuid.uuid4())
        return metadata

    def set_up_storage_reader(
        self,
        metadata: Metadata,
        is_coordinator: bool,  # noqa: FBT001 - as torch has it
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the metadata, which may be another rank's."""
        del is_coordinator, args, kwargs
        self._metadata = metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leave the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read all items of the plan; done when it returns."""
        if self._metadata is None:
            raise RuntimeError("set_up_storage_reader comes before read_data")
        folder, metadata = self._looked(), self._metadata
        objects: list[ObjectWanted] = []
        tensors: list[tuple[ReadItem, torch.Tensor, TensorWanted]] = []
        for fqn in {item.storage_index.fqn for item in plan.items}:
            entry = metadata.state_dict_metadata[fqn]
            if not isinstance(entry, BytesStorageMetadata):
                check_whole(fqn, entry, folder.store.url)
        for item in plan.items:
            if item.type is LoadItemType.BYTE_IO:
                place = place_of(metadata, item.storage_index, folder.store.url)
                objects.append(ObjectWanted(place, partial(_hand_on, planner, item)))
            else:
                target = planner.resolve_tensor(item)
                tensors.append((item, target, tensor_wanted(metadata, item, target, folder.store.url)))
        read_wanted(
            folder,
            [wanted for _, _, wanted in tensors],
            objects,
            weights_only=self._weights_only,
            progress=self._progress,
        )
        for item, target, _ in tensors:
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _looked(self) -> Folder:
        if self._folder is None:
            url = self._url
            self._folder = (
                find_folder(url, self._storage_options)
                if isinstance(url, (str, os.PathLike))
                else Folder.of(url, None)
            )
        return self._folder


def place_of(metadata: Metadata, index: MetadataIndex, where: str) -> _StorageInfo:
    """Where an item lies.

    Raises:
        CorruptCheckpointError: the metadata does not say.
    """
    place: _StorageInfo | None = metadata.storage_data.get(index)
    if place is None:
        raise CorruptCheckpointError(f"{where}: the metadata does not say where {index.fqn[:200]!r} lies.")
    return place


def tensor_wanted(metadata: Metadata, item: ReadItem, target: torch.Tensor, where: str) -> TensorWanted:
    """What is to be read for one item of a plan, into its target."""
    index = item.storage_index
    entry: TensorStorageMetadata = metadata.state_dict_metadata[index.fqn]  # type: ignore[assignment]
    chunk = next((each for each in entry.chunks if each.offsets == index.offset), None)
    if index.index is not None and entry.chunks[index.index].offsets == index.offset:
        chunk = entry.chunks[index.index]
    if chunk is None or target.size() != item.lengths:
        raise CorruptCheckpointError(f"{where}: the plan does not fit the metadata of {index.fqn[:200]!r}.")
    return TensorWanted(
        place_of(metadata, index, where),
        chunk,
        entry.properties.dtype,
        item.storage_offsets,
        item.lengths,
        target.detach(),
    )


def _hand_on(planner: LoadPlanner, item: ReadItem, value: Any) -> None:
    """Give a planner the object that was loaded with care, in the form that it expects: it loads without."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    planner.load_bytes(item, file)
