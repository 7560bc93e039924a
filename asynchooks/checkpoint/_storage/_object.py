"""A prefix in an object store, through obstore: uploads in parts straight from memory, complete or absent.

obstore retries, aborts a failed multipart upload and releases the GIL throughout; this module only cuts the
content into parts and turns the answers into entries.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import obstore

from asynchooks.checkpoint._content import CHUNK_BYTES
from asynchooks.checkpoint._manifest import check_name
from asynchooks.checkpoint._storage._errors import Guard, is_overwritten
from asynchooks.checkpoint._storage._object_owner import ObjectOwnerFile
from asynchooks.checkpoint._storage._store import ALONE, Entry, Progress, Share, nothing, scatter, unlimited
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from obstore.store import ObjectStore as Client

    from asynchooks.checkpoint._content import Content
    from asynchooks.checkpoint._storage._s3_uploads import S3Uploads
    from asynchooks.checkpoint._storage._store import Upload

__all__ = ["ObjectStore"]

logger = logging.getLogger(__name__)

_PART_BYTES = 8 * 2**20
_PARTS_OF_MANY = {64: 64 * 2**20, 4097: 128 * 2**20}
"""From so many processes on that write at once: their requests are what a bucket limits (benchmarks/scale.md)."""
_REQUESTS_PER_S = 3_150
"""Of all of them together: nine tenths of what S3 takes for one prefix."""
_LEAST_WAIT_S = 0.1
_PARTS_IN_FLIGHT = 4
_MAX_PARTS = 9_000  # S3 takes 10,000
_PARALLEL_READS = 8
_HEAD_BYTES = 256
_INSISTING_ATTEMPTS = 3
"""Of what obstore tries once when the connection breaks, since it cannot know whether it was done."""
_NO_RANGE = ("non-partial response", "Content-Range")
"""What obstore says of an answer to another question than the range that was asked for."""


class ObjectStore:
    """A prefix of a bucket or container.

    Args:
        client: obstore's, for the URL that was opened.
        url: this folder's.
        secrets: texts that must not appear in a message.
        uploads: tells of unfinished uploads into this folder, where the store can be asked.
        inside: the folder's path below the client's own; empty, or with a slash at its end.
    """

    def __init__(
        self,
        client: Client,
        *,
        url: str,
        secrets: tuple[str, ...] = (),
        uploads: S3Uploads | None = None,
        inside: str = "",
    ) -> None:
        self._client: Any = client
        self._inside = inside
        self._uploads = uploads
        self._guard = Guard(url, secrets=secrets)
        self._insisting = replace(self._guard, attempts=_INSISTING_ATTEMPTS)
        self._answers_ranges = True
        self._share = ALONE

    @property
    def url(self) -> str:
        """The prefix's URL."""
        return self._guard.url

    @property
    def parallel_reads(self) -> int:
        """Several; one, once the server was found not to answer ranges."""
        return _PARALLEL_READS if self._answers_ranges else 1

    def put(
        self,
        name: str,
        content: Content,
        *,
        progress: Progress = unlimited,
        before_visible: Callable[[], None] = nothing,
    ) -> None:
        """Upload; the object appears when the upload is completed, and a stopped upload is aborted."""
        with self._guard.translated("write", name):
            part_bytes = self._part_bytes(content.nbytes)
            self._wait_for_turn(2 + -(-content.nbytes // part_bytes), progress)
            if content.nbytes <= part_bytes:
                progress(content.nbytes)  # before: what it raises must leave nothing visible
                before_visible()
                obstore.put(self._client, self._path(name), b"".join(content.buffers), use_multipart=False)
                return
            stopped: list[Exception] = []
            try:
                obstore.put(
                    self._client,
                    self._path(name),
                    _reported(content.chunks(part_bytes), progress, before_visible, stopped),
                    use_multipart=True,
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_IN_FLIGHT,
                )
            except Exception as error:
                if stopped and error is not stopped[0]:
                    raise stopped[0] from error  # the abort failed as well: obstore tells of that alone
                if not (isinstance(error, FileNotFoundError) and self._begins_like(name, content)):
                    raise
                # there is no such upload to abort, since it was completed: only the answer to that was lost
                logger.info("%s/%s: the answer to the completed upload was lost", self.url, name)

    def read(self, name: str, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Stream the object: one request for all of it."""
        with self._guard.translated("read", name):
            stream = iter(obstore.get(self._client, self._path(name)).stream(min_chunk_size=chunk_bytes))
        while True:
            with self._guard.translated("read", name):
                try:
                    piece = next(stream, None)
                except Exception as error:
                    if not is_overwritten(error):
                        raise
                    raise CorruptCheckpointError(
                        f"{self.url.rstrip('/')}/{name} was overwritten while it was read. Read it again."
                    ) from error
            if piece is None:
                return
            yield memoryview(piece)

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        """Ask for the range. A server that answers anything else is read as a stream, up to the range.

        rclone is one: it sends the range, and calls it the whole object. Amazon and moto answer rightly.
        """
        with self._guard.translated("read", name):
            filled = 0
            for buffer in _cut(buffers):
                nread = self._read_range(name, offset + filled, buffer)
                filled += nread
                if nread < buffer.nbytes:
                    break
            return filled

    def entries(self) -> Mapping[str, Entry]:
        """The objects directly under the prefix."""
        with self._guard.translated("list", ""):
            objects = obstore.list_with_delimiter(self._client, self._prefix)["objects"]
        return {
            item["path"].rpartition("/")[2]: Entry(item["size"], item["last_modified"].timestamp())
            for item in objects
        }

    def delete(self, name: str) -> None:
        """Delete the object."""
        self._insisting.call("delete", name, lambda: self._delete(name))

    def folder(self, name: str) -> ObjectStore:
        """The prefix below."""
        folder = ObjectStore(
            self._client,
            url=f"{self.url.rstrip('/')}/{check_name(name)}",
            secrets=self._guard.secrets,
            uploads=None if self._uploads is None else self._uploads.inside(name),
            inside=f"{self._inside}{name}/",
        )
        folder._answers_ranges = self._answers_ranges
        return folder

    def shared(self, share: Share) -> ObjectStore:
        """The same prefix. Its parts are larger, the more processes write; they begin one after the other.

        Each begins when those before it can have sent all their requests at the rate that the store takes. Larger
        parts hold more memory: four of them are under way at once.
        """
        one = copy(self)
        one._share = share  # noqa: SLF001 - its own kind
        return one

    def folders(self) -> Collection[str]:
        """The prefixes below, up to the next slash."""
        with self._guard.translated("list", ""):
            prefixes = obstore.list_with_delimiter(self._client, self._prefix)["common_prefixes"]
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]

    def discard(self) -> None:
        """Nothing: a prefix is gone with the last object under it."""

    @property
    def _prefix(self) -> str | None:
        return self._inside.rstrip("/") or None

    def _part_bytes(self, nbytes: int) -> int:
        least = max((size for many, size in _PARTS_OF_MANY.items() if many <= self._share.writers), default=0)
        return max(_PART_BYTES, least, -(-nbytes // _MAX_PARTS))

    def _wait_for_turn(self, requests: int, progress: Progress) -> None:
        """Wait until the requests of the processes before this one are over, at the rate that the store takes."""
        wait_s = self._share.writer * requests / _REQUESTS_PER_S
        if wait_s < _LEAST_WAIT_S:
            return
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0:
            progress(1)
            time.sleep(min(left_s, _LEAST_WAIT_S))

    def _path(self, name: str) -> str:
        return self._inside + name

    def _begins_like(self, name: str, content: Content) -> bool:
        """Whether the object has the content's length and first bytes, in which a checkpoint's save id stands."""
        try:
            if obstore.head(self._client, self._path(name))["size"] != content.nbytes:
                return False
            pieces = self.read(name, chunk_bytes=_HEAD_BYTES)
            with closing(pieces):  # type: ignore[type-var] # a generator
                head = bytes(next(pieces)[:_HEAD_BYTES])
        except Exception:  # noqa: BLE001 - the failure on its way is the one to report
            return False
        return next(content.chunks(_HEAD_BYTES)) == head

    def _read_range(self, name: str, offset: int, buffer: memoryview) -> int:
        if self._answers_ranges:
            try:
                data = memoryview(
                    obstore.get_range(self._client, self._path(name), start=offset, length=buffer.nbytes)
                )
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:
                if not any(sign in str(error) for sign in _NO_RANGE):
                    if offset >= obstore.head(self._client, self._path(name))["size"]:
                        return 0
                    raise
            else:
                if data.nbytes == buffer.nbytes or self._ends_at(name, offset + data.nbytes):
                    return scatter(data, [buffer])
            self._answers_ranges = False
            logger.info("%s does not answer ranges: reading whole files", self.url)
        return self._read_streamed(name, offset, buffer)

    def _ends_at(self, name: str, end: int) -> bool:
        return bool(obstore.head(self._client, self._path(name))["size"] == end)

    def _read_streamed(self, name: str, offset: int, buffer: memoryview) -> int:
        """Read from the start, drop what comes before the range."""
        skip, filled = offset, 0
        with closing(self.read(name)) as pieces:  # type: ignore[type-var] # a generator
            for piece in pieces:
                wanted = piece[skip : skip + buffer.nbytes - filled]
                skip -= min(skip, piece.nbytes)
                filled += scatter(wanted, [buffer[filled:]])
                if filled == buffer.nbytes:
                    break
        return filled

    def is_being_written(self, name: str) -> bool:
        """False: an object store shows no unfinished file."""
        del name
        return False

    def unfinished_uploads(self, *, needed: bool = True) -> list[Upload]:
        """What was begun here and is not complete, where the store can be asked."""
        with self._guard.translated("list the uploads in", ""):
            return [] if self._uploads is None else list(self._uploads.unfinished(needed=needed))

    def abort_upload(self, upload: Upload) -> None:
        """Abort an unfinished upload."""
        with self._guard.translated("abort the upload of", upload.name):
            if self._uploads is not None:
                self._uploads.abort(upload)

    def owner_file(self, name: str) -> ObjectOwnerFile:
        """The prefix's owner file, guarded by conditional puts."""
        return ObjectOwnerFile(self._client, self._path(name), self._insisting)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):  # stores differ in whether a missing object is an error
            obstore.delete(self._client, self._path(name))


def _reported(
    chunks: Iterator[memoryview],
    progress: Progress,
    before_visible: Callable[[], None],
    stopped: list[Exception],
) -> Iterator[memoryview]:
    """The parts, pulled by obstore when it has room; what a callback raises makes it abort the upload."""
    try:
        for chunk in chunks:
            progress(chunk.nbytes)
            yield chunk
        with ThreadPoolExecutor(
            1
        ) as thread:  # obstore pulls on a thread of its runtime, where its own calls panic
            thread.submit(before_visible).result()
    except Exception as error:
        stopped.append(error)
        raise


def _cut(buffers: Iterable[memoryview]) -> Iterator[memoryview]:
    for buffer in buffers:
        for start in range(0, buffer.nbytes, CHUNK_BYTES):
            yield buffer[start : start + CHUNK_BYTES]
