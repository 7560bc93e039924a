"""Which checkpoint a run starts from, and reading it.

Decides where to look: where the run's checkpoint hooks save, then in its work folder. What is there but broken
is passed over aloud by the checkpoint package; what was named and cannot be used is an error. Where only a best
checkpoint without the optimizer is left, a run that looks by itself starts anew, aloud: it was stopped before its
first save that can be resumed, and an error would stop it again at every start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynchooks import checkpoint as checkpoints
from asynchooks.runner._taking_up import check_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Source", "find_source", "read_checkpoint"]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's address, the store's options for it, and its content where looking for it has read it."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    content: dict[str, Any] | None = field(default=None, repr=False)


def read_checkpoint(source: Source, map_location: Any) -> dict[str, Any]:
    """Return a checkpoint's content, verified.

    Raises:
        CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
    """
    content = source.content
    if content is None:
        content = checkpoints.restore(
            source.url, map_location=map_location, storage_options=dict(source.options)
        )
    return check_content(content, source.url)


def find_source(
    runner: Any,
    resume: bool | str | os.PathLike[str],  # noqa: FBT001 - MMEngine's word: True looks for the newest
    load_from: str | None,
    options: Mapping[str, Any],
    *,
    to_train: bool,
) -> Source | None:
    """Return what a run resumes from, or None, said aloud, where it starts anew.

    Args:
        runner: the run, with its hooks.
        resume: True, "auto", or one checkpoint's address.
        load_from: where ``resume=True`` looks instead, if given.
        options: the store's options for addresses that no hook owns.
        to_train: whether the optimizer's state is needed; an evaluation needs none.
    """
    if resume is True and load_from is not None:
        return Source(load_from, options)
    if not isinstance(resume, bool) and resume != "auto":
        return Source(os.fspath(resume), options)
    folders = dict(_folders(runner, options))
    for folder, its_options in folders.items():
        found = checkpoints.restore_latest(folder, map_location="cpu", storage_options=dict(its_options))
        if found is None:
            continue
        info, content = found
        if to_train and info.saved_as == "best" and _lacks_optimizer(runner, content):
            runner.logger.warning(
                "step %d: %s was saved as best, without the optimizer, and nothing else is there: it cannot be "
                "resumed from. load_from=... would start with its weights.",
                info.step,
                info.url,
            )
            continue
        return Source(info.url, its_options, content)
    runner.logger.info("no checkpoint to resume in %s: starting anew", " or ".join(folders))
    return None


def _lacks_optimizer(runner: Any, content: Mapping[str, Any]) -> bool:
    return runner.optim_wrapper is not None and "optimizer" not in content


def _folders(runner: Any, options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for hook in runner.hooks:
        locate = getattr(hook, "checkpoint_folder", None)
        if callable(locate):  # a checkpoint hook, which knows where it saves
            yield str(locate(runner)), getattr(hook, "backend_args", options)
    yield runner.work_dir, options
