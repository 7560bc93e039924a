"""What a URL names: a folder, or one checkpoint in its folder. Decides by looking: no text can tell.

The user's own URL is what the store is opened with, since it may carry what the store's printed URL does not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynchooks.checkpoint import inspect_folder
from asynchooks.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asynchooks.checkpoint import CheckpointInfo, FolderContents, OtherFile

__all__ = ["Place", "look_at"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with its contents, and the file in it that was named, if one was."""

    folder: str
    options: Mapping[str, Any]
    contents: FolderContents
    name: str | None = None

    def url_of(self, name: str) -> str:
        """The address to open a file of the folder with."""
        return f"{self.folder.rstrip('/')}/{name}"

    @property
    def checkpoint(self) -> CheckpointInfo | None:
        """The committed checkpoint that was named."""
        return next((info for info in self.contents.checkpoints if info.name == self.name), None)

    @property
    def other(self) -> OtherFile | None:
        """The file that was named, if it is no committed checkpoint."""
        return next((other for other in self.contents.others if other.name.rstrip("/") == self.name), None)


def look_at(url: str, options: Mapping[str, Any]) -> Place:
    """Find out what is at a URL.

    Raises:
        CheckpointNotFoundError: neither a folder nor a file, and no place where one could be.
        StorageError: the store failed or refused.
    """
    try:
        contents = inspect_folder(url, storage_options=options)
    except CheckpointNotFoundError:  # on a local disk a file is no folder; elsewhere the bucket is missing
        place = _as_file(url, options)
        if place is None:
            raise
        return place
    is_empty = not (contents.nbytes or contents.checkpoints or contents.others)
    is_sharded = not contents.checkpoints and any(other.name == ".metadata" for other in contents.others)
    if not (is_empty or is_sharded):
        return Place(url, options, contents)
    return _as_file(url, options) or Place(url, options, contents)


def _as_file(url: str, options: Mapping[str, Any]) -> Place | None:
    text = url if "://" in url else os.path.abspath(url)  # noqa: PTH100 - a store's folder, not resolved through links
    folder, _, name = text.rstrip("/").rpartition("/")
    if not name or folder.endswith(":/"):
        return None
    try:
        contents = inspect_folder(folder or "/", storage_options=options)
    except CheckpointError:  # what was asked for is the URL: its own answer is the one to tell
        return None
    place = Place(folder or "/", options, contents, name)
    return place if place.checkpoint or place.other else None
