"""Sharded checkpoints for tests: two ranks' files and a `.metadata`, committed step by step as a save does."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property

from asynchooks.checkpoint import Content, Store
from asynchooks.checkpoint._commit import metadata_file, publish_sharded, settle
from asynchooks.checkpoint._content import checksum
from asynchooks.checkpoint._files import File, chunk_bytes_for, chunk_lengths
from asynchooks.checkpoint._manifest import Manifest, SavedAs
from asynchooks.checkpoint._storage import nesting


@dataclass(frozen=True)
class Sharded:
    """A save of `world_size` ranks, of a file each. Arbitrary bytes, different in each save and of one length."""

    step: int
    name: str = "iter_1"
    world_size: int = 2
    nbytes: int = 1000
    run_id: str = "run"
    saved_as: SavedAs | None = None
    created_ns: int = 0

    @cached_property
    def save_id(self) -> str:
        return uuid.uuid4().hex

    @cached_property
    def data(self) -> dict[str, bytes]:
        """The ranks' files."""
        return {
            f"__{rank}_0.{self.save_id}.distcp": bytes([rank, self.step]) * (self.nbytes // 2)
            for rank in range(self.world_size)
        }

    @property
    def metadata(self) -> bytes:
        """Names the files, as DCP's does."""
        return b"\n".join(name.encode() for name in self.data)

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            name=self.name,
            step=self.step,
            epoch=None,
            metrics={},
            chunks=(),
            tensors="",
            created_ns=self.created_ns or self.step + 1,
            run_id=self.run_id,
            save_id=self.save_id,
            group=self.saved_as or "last",
            saved_as=self.saved_as,
            files=(
                *(file_of(name, content) for name, content in self.data.items()),
                metadata_file(self.metadata, nfiles=self.world_size),
            ),
            world_size=self.world_size,
        )

    def put_data(self, store: Store) -> None:
        """What all ranks do."""
        for name, content in self.data.items():
            nesting(store).folder(self.name).put(name, Content.of(content))

    def save(self, store: Store) -> Manifest:
        """All of a save."""
        replaced = settle(store, self.name)
        self.put_data(store)
        publish_sharded(store, self.manifest, self.metadata, replaced)
        return self.manifest

    def is_what_dcp_reads(self, store: Store) -> bool:
        """Whether `.metadata` is this save's, and all that it names is there."""
        folder = nesting(store).folder(self.name)
        entries = folder.entries()
        if ".metadata" not in entries or b"".join(folder.read(".metadata")) != self.metadata:
            return False
        return all(b"".join(folder.read(name)) == content for name, content in self.data.items())


def file_of(name: str, content: bytes) -> File:
    chunk_bytes = chunk_bytes_for(len(content), nfiles=2)
    return File.of(name, checksum(Content.of(content), chunk_lengths(len(content), chunk_bytes)), chunk_bytes)
