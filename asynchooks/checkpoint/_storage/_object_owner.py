"""The owner file in an object store: replaced on the condition that it is the version that was read.

Decides by the store's conditional put (If-None-Match and If-Match on S3, their like on Azure and GCS). A store
that knows no conditions takes the write as a plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

if TYPE_CHECKING:
    from obstore import PutMode

    from asynchooks.checkpoint._storage._errors import Guard

__all__ = ["ObjectOwnerFile"]


class ObjectOwnerFile:
    """The object, and its version when it was last read or written."""

    def __init__(self, client: Any, name: str, guard: Guard) -> None:
        self._client = client
        self._name = name
        self._guard = guard
        self._version: PutMode = "create"

    def hold(self) -> bool:
        """Nothing to hold: who writes first wins."""
        return True

    def let_go(self) -> None:
        """Nothing to let go."""

    def read(self) -> bytes | None:
        """Read it and remember its version."""
        with self._guard.translated("claim", self._name):
            try:
                found = obstore.get(self._client, self._name)
            except FileNotFoundError:
                self._version = "create"
                return None
            self._version = _version(found.meta)
            return bytes(found.bytes())

    def write(self, text: bytes) -> bool:
        """Put it on the condition that nobody else has.

        Where an attempt was done whose answer was lost, the next one fails its condition, and the caller reads who
        the owner is.
        """
        return self._guard.call("claim", self._name, lambda: self._write(text))

    def _write(self, text: bytes) -> bool:
        try:
            done = self._put(text, self._version)
        except (AlreadyExistsError, PreconditionError):
            return False
        except FileNotFoundError:
            if self._version in ("create", "overwrite"):
                raise  # the bucket is missing
            return False
        self._version = _version(done)
        return True

    def _put(self, text: bytes, mode: PutMode) -> Any:
        try:
            return obstore.put(self._client, self._name, text, mode=mode, use_multipart=False)
        except Exception as error:
            if not isinstance(error, NotSupportedError) and "501 Not Implemented" not in str(error):
                raise
            return obstore.put(self._client, self._name, text, use_multipart=False)


def _version(answer: Any) -> PutMode:
    """The condition that an object is still this version; none where the store tells no version."""
    found = {key: value for key in ("e_tag", "version") if (value := answer.get(key)) is not None}
    return found or "overwrite"  # type: ignore[return-value] # a TypedDict, built from what is there
