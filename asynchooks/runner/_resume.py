"""Which checkpoint a run starts from, and reading it.

Decides where to look: where the run's checkpoint hooks save, then in its work folder. What is there but broken
is passed over aloud by the checkpoint package; what was named and cannot be used is an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynchooks import checkpoint as checkpoints
from asynchooks.runner._context import check_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Source", "find_source", "read_checkpoint"]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's address, and the store's options for it."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(source: Source, map_location: Any) -> dict[str, Any]:
    """Return a checkpoint's content, verified.

    Raises:
        CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
    """
    content = checkpoints.restore(source.url, map_location=map_location, storage_options=dict(source.options))
    return check_content(content, source.url)


def find_source(
    runner: Any,
    resume: bool | str | os.PathLike[str],  # noqa: FBT001 - MMEngine's word: True looks for the newest
    load_from: str | None,
    options: Mapping[str, Any],
) -> Source | None:
    """Return what a run resumes from, or None, said aloud, where it starts anew.

    Args:
        runner: the run, with its hooks.
        resume: True, "auto", or one checkpoint's address.
        load_from: where ``resume=True`` looks instead, if given.
        options: the store's options for addresses that no hook owns.
    """
    if resume is True and load_from is not None:
        return Source(load_from, options)
    if not isinstance(resume, bool) and resume != "auto":
        return Source(os.fspath(resume), options)
    folders = dict(_folders(runner, options))
    for folder, its_options in folders.items():
        found = checkpoints.find_latest(folder, storage_options=dict(its_options))
        if found is not None:
            return Source(found.url, its_options)
    runner.logger.info("no checkpoint to resume in %s: starting anew", " or ".join(folders))
    return None


def _folders(runner: Any, options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for hook in runner.hooks:
        locate = getattr(hook, "checkpoint_folder", None)
        if callable(locate):  # a checkpoint hook, which knows where it saves
            yield str(locate(runner)), getattr(hook, "backend_args", options)
    yield runner.work_dir, options
