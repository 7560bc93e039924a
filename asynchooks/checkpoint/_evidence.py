"""Whether what lies at a checkpoint's name is what a manifest describes.

Decides by names, lengths and the mark of the save: the save id at the front of a single file, the checksum of a
sharded checkpoint's `.metadata`. Whether every byte is right is `_verify`'s question.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._serialize import HEAD_BYTES, save_id_in
from asynchooks.checkpoint._storage import nesting
from asynchooks.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.checkpoint._files import File
    from asynchooks.checkpoint._manifest import Manifest
    from asynchooks.checkpoint._storage import Entry, Store

__all__ = ["is_data_of", "misfit", "written_by"]


def misfit(manifest: Manifest, entries: Mapping[str, Entry]) -> str | None:
    """What is wrong with the data, in words; None when every file is there with its length.

    `entries` are those of the run's folder for a single file, and those of its own folder for a sharded checkpoint.
    """
    if not manifest.files:
        return _misfit_of(manifest.name, manifest.nbytes, manifest.step, entries)
    found = (_misfit_of(file.name, file.nbytes, manifest.step, entries) for file in manifest.files)
    return next((reason for reason in found if reason is not None), None)


def is_data_of(store: Store, manifest: Manifest) -> bool:
    """Whether the data at the name was written by the save that the manifest describes. Reads the mark alone."""
    if not manifest.files:
        return written_by(store, manifest.name) == manifest.save_id
    return _has_content(nesting(store).folder(manifest.name), manifest.metadata)


def written_by(store: Store, name: str) -> str | None:
    """The id of the save that wrote a single file; None for a file of another kind, or none at all."""
    head = b""
    try:
        with closing(store.read(name, chunk_bytes=HEAD_BYTES)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                head += bytes(piece[: HEAD_BYTES - len(head)])
                if len(head) >= HEAD_BYTES:
                    break
    except CheckpointNotFoundError:
        return None
    return save_id_in(head)


def _misfit_of(name: str, nbytes: int, step: int, entries: Mapping[str, Entry]) -> str | None:
    if name not in entries:
        return f"{name} is not there"
    if entries[name].nbytes != nbytes:
        return f"{name} has {entries[name].nbytes} bytes where {nbytes} were saved at step {step}"
    return None


def _has_content(store: Store, file: File) -> bool:
    """Whether a file is there and has these checksums; reads one chunk at a time, and stops where one differs."""
    offset = 0
    for chunk in file.chunks:
        buffer = memoryview(bytearray(chunk.nbytes + (offset + chunk.nbytes == file.nbytes)))
        try:
            nread = store.read_into(file.name, offset, [buffer])
        except CheckpointNotFoundError:
            return False
        if nread != chunk.nbytes or digest([buffer[:nread]]) != chunk.digest:
            return False
        offset += chunk.nbytes
    return offset > 0
