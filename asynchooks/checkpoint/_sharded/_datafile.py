"""One rank's data file: its name, and bringing it to the store, summed while it is written.

A data file has a name that no reader knows before `.metadata` names it, so nothing is announced and it may appear at
any time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from asynchooks.checkpoint._content import CHUNK_BYTES, checksum
from asynchooks.checkpoint._files import File, chunk_bytes_for, chunk_lengths

if TYPE_CHECKING:
    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["data_name", "write_data"]


def data_name(rank: int, save_id: str) -> str:
    """The name of a rank's data file."""
    return f"__{rank}_0.{save_id}.distcp"


def write_data(folder: Store, name: str, content: Content, *, nfiles: int, progress: Progress) -> File:
    """Write a data file; on return it is durable. Worker thread.

    Args:
        folder: of the checkpoint.
        name: of the file.
        content: its bytes.
        nfiles: how many files the checkpoint has, about.
        progress: as of `Store.put`.
    """
    chunk_bytes = chunk_bytes_for(content.nbytes, nfiles=nfiles)
    summed = partial(checksum, content, chunk_lengths(content.nbytes, chunk_bytes))
    if content.nbytes <= CHUNK_BYTES:
        folder.put(name, content, progress=progress)
        return File.of(name, summed(), chunk_bytes)
    with ThreadPoolExecutor(1, "asynchooks-checksum") as thread:
        chunks = thread.submit(summed)
        folder.put(name, content, progress=progress)
        return File.of(name, chunks.result(), chunk_bytes)
