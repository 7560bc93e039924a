"""Bringing the bytes of one checkpoint to the store: summed while they are written, announced before they appear.

Decides what happens at the same time. The checksums are taken by a thread of their own while the store writes, so
that they cost no time; the next manifest, which needs them, is written when all bytes are at the store and none is
visible yet. Knows no retention and no pointer.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from asynchooks.checkpoint._commit import announce, check_layout
from asynchooks.checkpoint._content import CHUNK_BYTES, checksum, chunk_plan, digest
from asynchooks.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynchooks.checkpoint._manifest import Manifest
    from asynchooks.checkpoint._serialize import Serialized
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["Persist"]


class Persist:
    """One attempt to persist; worker thread only.

    Args:
        store: where to.
        draft: the manifest without checksums.
        serialized: the bytes.
        renew_claim: raises when the folder is another process's by now.
    """

    def __init__(
        self, store: Store, draft: Manifest, serialized: Serialized, *, renew_claim: Callable[[], None]
    ) -> None:
        self._store = store
        self._draft = draft
        self._serialized = serialized
        self._renew_claim = renew_claim
        self._announced: Manifest | None = None

    @property
    def has_announced(self) -> bool:
        """Whether a next manifest was, or may have been, written."""
        return self._announced is not None

    def run(self, progress: Progress) -> Manifest:
        """Write the data; on return it is durable and visible. Returns the manifest to publish."""
        check_layout(self._store, self._draft.name, "single")
        content = self._serialized.content
        if content.nbytes <= CHUNK_BYTES:
            summed: Future[Manifest] = Future()
            summed.set_result(self._summed())
            self._put(summed, progress)
        else:
            with ThreadPoolExecutor(1, "asynchooks-checksum") as thread:
                self._put(thread.submit(self._summed), progress)
        if self._announced is None:
            raise StorageError(
                f"{type(self._store).__name__}.put({self._draft.name!r}) returned without calling before_visible: "
                "the store does not keep its contract; asynchooks.testing.StoreSuite checks it."
            )
        return self._announced

    def _put(self, summed: Future[Manifest], progress: Progress) -> None:
        def before_visible() -> None:
            progress(0)  # an attempt that was given up, and whose thread goes on, must not appear
            manifest = summed.result()
            self._renew_claim()
            self._announced = manifest
            announce(self._store, manifest)
            progress(0)

        self._store.put(
            self._draft.name, self._serialized.content, progress=progress, before_visible=before_visible
        )

    def _summed(self) -> Manifest:
        """The draft with the checksums of the content, and one of the tensors alone."""
        content, start, end = self._serialized.content, self._serialized.start, self._serialized.end
        chunks = checksum(content, chunk_plan(content.nbytes, start, end))
        inside = [chunk.digest for chunk in chunks[1 : len(chunks) - 1]] if start < end else []
        tensors = digest([text.encode() for text in inside]) if inside else ""
        return replace(self._draft, chunks=chunks, tensors=tensors)
