"""The folder of a sharded checkpoint: its files with their lengths and sums, and its metadata once it is read.

Decides what is believed of `.metadata`: names that stay in the folder, and no more than the files can hold.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from asynchooks.checkpoint._catalog import find_committed, url_of
from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._files import METADATA, check_file_name
from asynchooks.checkpoint._restore._reading import Extent
from asynchooks.checkpoint._sharded._metadata import MAX_METADATA_BYTES, decode_metadata
from asynchooks.checkpoint._storage import NestingStore, open_folder, read_all
from asynchooks.errors import CheckpointNotFoundError, CorruptCheckpointError, UnsafePathError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

    from asynchooks.checkpoint._files import File
    from asynchooks.checkpoint._manifest import Manifest
    from asynchooks.checkpoint._storage import Store

__all__ = ["Folder", "check_whole", "find_folder", "is_sharded"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Folder:
    """One sharded checkpoint. Build it with `of`.

    Attributes:
        store: its folder.
        lengths: of its files, by their names.
        files: what its manifest says of them; None without a manifest.
        save: how errors name the save.
    """

    store: Store
    lengths: Mapping[str, int]
    files: Mapping[str, File] | None
    save: str

    @classmethod
    def of(cls, store: Store, manifest: Manifest | None) -> Folder:
        """Look at the folder, which is listed, and read nothing.

        Without a manifest, a warning in the log says that nothing will be compared.

        Raises:
            CheckpointNotFoundError: there is no `.metadata` in it.
        """
        if manifest is not None:
            files = {file.name: file for file in manifest.files}
            lengths = {name: file.nbytes for name, file in files.items()}
            return cls(store, lengths, files, f" (save {manifest.save_id})")
        lengths = {name: entry.nbytes for name, entry in store.entries().items()}
        if METADATA not in lengths:
            raise CheckpointNotFoundError(
                f"{store.url} is no sharded checkpoint: there is no {METADATA} in it. Check the URL."
            )
        logger.warning("%s has no manifest: loaded unverified", store.url)
        return cls(store, lengths, None, "")

    def metadata(self) -> Metadata:
        """Read what the checkpoint says of itself.

        Raises:
            CorruptCheckpointError: it is damaged, or not what the manifest describes.
            ForeignCheckpointError: it holds what no such metadata does; names it.
            UnsafePathError: it names a file outside of the folder.
        """
        where = url_of(self.store, METADATA)
        if self.lengths[METADATA] > MAX_METADATA_BYTES:
            raise CorruptCheckpointError(f"{where} is longer than {MAX_METADATA_BYTES} bytes: none is.")
        data = read_all(self.store, METADATA, limit_bytes=self.lengths[METADATA])
        if self.files is not None:
            self._compare(data, where)
        metadata = decode_metadata(data, where)
        for name in {info.relative_path for info in metadata.storage_data.values()}:
            try:
                check_file_name(name)
            except UnsafePathError as error:
                raise UnsafePathError(f"{where}: {error}") from error
        return metadata

    def nbytes_of(self, name: str) -> int:
        """The length of a file.

        Raises:
            CorruptCheckpointError: the metadata names it, and it is not there.
        """
        if name not in self.lengths:
            raise CorruptCheckpointError(
                f"{url_of(self.store, name)} is not there, or not in the manifest, but the metadata names it. "
                "Load an older checkpoint."
            )
        return self.lengths[name]

    def extents_of(self, name: str) -> list[Extent]:
        """The chunks of a file and their sums; none without a manifest."""
        if self.files is None:
            return []
        chunks = self.files[name].chunks
        ends = accumulate(chunk.nbytes for chunk in chunks)
        return [
            Extent(end - chunk.nbytes, end, f"chunk {index}", digest=chunk.digest)
            for index, (chunk, end) in enumerate(zip(chunks, ends, strict=True))
        ]

    def _compare(self, data: bytes, where: str) -> None:
        view, start = memoryview(data), 0
        for extent in self.extents_of(METADATA):
            if len(data) < extent.end or digest([view[extent.start : extent.end]]) != extent.digest:
                raise CorruptCheckpointError(
                    f"{where}: {extent.what} differs from what was saved{self.save}. Load an older checkpoint."
                )
            start = extent.end
        if start != len(data):
            raise CorruptCheckpointError(f"{where} is longer than what was saved{self.save}.")


def find_folder(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Folder:
    """The sharded checkpoint at a URL, with its manifest if there is one beside it."""
    store, name = open_folder(url, storage_options)
    if not isinstance(store, NestingStore):
        raise CheckpointNotFoundError(
            f"{url_of(store, name)}: a {type(store).__name__} has no folders inside."
        )
    manifest = find_committed(store, name)
    return Folder.of(store.folder(name), manifest if manifest is not None and manifest.files else None)


def is_sharded(store: Store, name: str) -> bool:
    """Whether there is a folder of that name with a `.metadata` in it, committed or not."""
    if not isinstance(store, NestingStore) or name not in store.folders():
        return False
    return METADATA in store.folder(name).entries()


def check_whole(fqn: str, entry: TensorStorageMetadata, where: str) -> None:
    """Refuse a tensor whose shards overlap or leave a hole: what nobody fills must never look like a tensor.

    Raises:
        CorruptCheckpointError: names the tensor.
    """
    chunks = [chunk for chunk in entry.chunks if 0 not in chunk.sizes]
    volumes = [_volume(chunk.sizes) for chunk in chunks]
    if sum(volumes) == _volume(entry.size) and not _overlap(
        [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in chunks]
    ):
        return
    raise CorruptCheckpointError(
        f"{where}: the shards of {fqn[:200]!r} overlap, or do not hold all of it. The metadata is damaged, or ranks "
        "did not save the same tensor."
    )


def _volume(sizes: tuple[int, ...]) -> int:
    volume = 1
    for size in sizes:
        volume *= size
    return volume


def _overlap(boxes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> bool:
    if len(boxes) < 2 or not boxes[0][0]:
        return len(boxes) > 1
    for dimension in range(len(boxes[0][0])):  # mostly, they lie in a row
        row = sorted((offsets[dimension], offsets[dimension] + sizes[dimension]) for offsets, sizes in boxes)
        if all(end <= start for (_, end), (start, _) in pairwise(row)):
            return False
    starts = np.array([offsets for offsets, _ in boxes], dtype=np.int64)
    ends = starts + np.array([sizes for _, sizes in boxes], dtype=np.int64)
    for index in range(len(boxes) - 1):
        meets = (starts[index + 1 :] < ends[index]) & (ends[index + 1 :] > starts[index])
        if bool(meets.all(axis=1).any()):
            return True
    return False
