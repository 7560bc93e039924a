"""A prefix in an object store, through obstore: uploads in parts straight from memory, complete or absent.

obstore retries, aborts a failed multipart upload and releases the GIL throughout; this module only cuts the
content into parts and turns the answers into entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import obstore

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._storage._errors import Guard
from asynchooks.checkpoint._storage._store import Entry, Progress, unlimited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore.store import ObjectStore as Client

    from asynchooks.checkpoint._content import Content

__all__ = ["ObjectStore"]

_PART_BYTES = 8 * 2**20
_PARTS_IN_FLIGHT = 4
_MAX_PARTS = 9_000  # S3 takes 10,000


class ObjectStore:
    """A prefix of a bucket or container."""

    def __init__(self, client: Client, *, url: str, secrets: tuple[str, ...] = ()) -> None:
        self._client: Any = client
        self._guard = Guard(url, secrets=secrets)

    @property
    def url(self) -> str:
        """The prefix's URL."""
        return self._guard.url

    def put(self, name: str, content: Content, *, progress: Progress = unlimited) -> None:
        """Upload; the object appears when the upload is completed, and a stopped upload is aborted."""
        with self._guard.translated("write", name):
            part_bytes = max(_PART_BYTES, -(-content.nbytes // _MAX_PARTS))
            if content.nbytes <= part_bytes:
                progress(content.nbytes)  # before: what it raises must leave nothing visible
                obstore.put(self._client, name, b"".join(content.buffers), use_multipart=False)
                return
            stopped: list[Exception] = []
            try:
                obstore.put(
                    self._client,
                    name,
                    _reported(content.chunks(part_bytes), progress, stopped),
                    use_multipart=True,
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_IN_FLIGHT,
                )
            except Exception as error:
                if stopped and error is not stopped[0]:
                    raise stopped[0] from error  # the abort failed as well: obstore tells of that alone
                raise

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Stream the object. One request for all of it: not every server answers ranges rightly."""
        with self._guard.translated("read", name):
            stream = iter(obstore.get(self._client, name).stream(min_chunk_size=chunk_bytes))
        while True:
            with self._guard.translated("read", name):
                piece = next(stream, None)
            if piece is None:
                return
            yield memoryview(piece)

    def entries(self) -> Mapping[str, Entry]:
        """The objects directly under the prefix."""
        with self._guard.translated("list", ""):
            objects = obstore.list_with_delimiter(self._client)["objects"]
        return {
            item["path"].rpartition("/")[2]: Entry(item["size"], item["last_modified"].timestamp())
            for item in objects
        }

    def delete(self, name: str) -> None:
        """Delete the object."""
        with self._guard.translated("delete", name):
            try:
                obstore.delete(self._client, name)
            except FileNotFoundError:
                return  # stores differ in whether a missing object is an error

    def is_being_written(self, name: str) -> bool:
        """False: an object store shows no unfinished file."""
        del name
        return False


def _reported(
    chunks: Iterator[memoryview], progress: Progress, stopped: list[Exception]
) -> Iterator[memoryview]:
    """The parts, pulled by obstore when it has room; what `progress` raises makes it abort the upload."""
    try:
        for chunk in chunks:
            progress(chunk.nbytes)
            yield chunk
        progress(0)
    except Exception as error:
        stopped.append(error)
        raise
