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
from asynchooks.distributed import tried_by_all
from asynchooks.runner._places import parts_to_read
from asynchooks.runner._taking_up import check_content

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from asynchooks.runner._context import RunContext

__all__ = ["Source", "find_source", "read_checkpoint", "read_together"]

_TO_TRAIN = ("optimizer", "optimizer_extra", "param_schedulers", "resume")


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that a run starts from.

    Attributes:
        url: its address.
        options: the store's, for it.
        content: where looking for it has read it.
        is_newest: whether it was looked for, and is sharded: another one may take its place if it is not whole.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    content: dict[str, Any] | None = field(default=None, repr=False)
    is_newest: bool = False


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


def read_together(run: RunContext, source: Source, map_location: Any, *, to_train: bool) -> dict[str, Any]:
    """Return a checkpoint's content on every rank: whole, or of a sharded one this rank's part. A collective.

    A sharded one is read into the live weights and the live state of the optimizer.

    Args:
        run: which takes it up.
        source: the checkpoint.
        map_location: as of `torch.load`, for a single file.
        to_train: whether more than the weights is needed.

    Raises:
        CheckpointNotFoundError, CorruptCheckpointError, ForeignCheckpointError: it cannot be used.
        RankFailedError: another rank could not read it.
    """
    what, options = f"read {source.url}", dict(source.options)
    entries = tried_by_all(
        what,
        lambda: (
            None
            if source.content is not None
            else checkpoints.shard_entries(source.url, storage_options=options)
        ),
    )
    if entries is None:
        return tried_by_all(what, lambda: read_checkpoint(source, map_location))
    wanted = {name: each for name, each in entries.items() if to_train or each.path[0] not in _TO_TRAIN}
    state, keys = parts_to_read(run, wanted)
    tried_by_all(
        what, lambda: checkpoints.restore(source.url, keys=keys, into=state, storage_options=options)
    )
    return check_content(state, source.url)


def find_source(
    runner: Any,
    resume: bool | str | os.PathLike[str],  # noqa: FBT001 - MMEngine's word: True looks for the newest
    load_from: str | None,
    options: Mapping[str, Any],
    *,
    to_train: bool,
    besides: Collection[str] = (),
) -> Source | None:
    """Return what a run resumes from, or None, said aloud, where it starts anew.

    Args:
        runner: the run, with its hooks.
        resume: True, "auto", or one checkpoint's address.
        load_from: where ``resume=True`` looks instead, if given.
        options: the store's options for addresses that no hook owns.
        to_train: whether the optimizer's state is needed; an evaluation needs none.
        besides: addresses of checkpoints that are known not to be whole.
    """
    if resume is True and load_from is not None:
        return Source(load_from, options)
    if not isinstance(resume, bool) and resume != "auto":
        return Source(os.fspath(resume), options)
    folders = dict(_folders(runner, options))
    for folder, its_options in folders.items():
        options_here = dict(its_options)
        found = checkpoints.find_readable(
            folder, besides=besides, map_location="cpu", storage_options=options_here
        )
        if found is None:
            continue
        info, content = found
        if to_train and info.saved_as == "best" and _lacks_optimizer(runner, info.url, content, options_here):
            runner.logger.warning(
                "step %d: %s was saved as best, without the optimizer, and nothing else is there: it cannot be "
                "resumed from. load_from=... would start with its weights.",
                info.step,
                info.url,
            )
            continue
        return Source(info.url, its_options, content, is_newest=content is None)
    runner.logger.info("no checkpoint to resume in %s: starting anew", " or ".join(folders))
    return None


def _lacks_optimizer(
    runner: Any, url: str, content: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> bool:
    if runner.optim_wrapper is None:
        return False
    if content is not None:
        return "optimizer" not in content
    entries = checkpoints.shard_entries(url, storage_options=options) or {}
    return not any(entry.path[0] == "optimizer" for entry in entries.values())


def _folders(runner: Any, options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for hook in runner.hooks:
        locate = getattr(hook, "checkpoint_folder", None)
        if callable(locate):  # a checkpoint hook, which knows where it saves
            yield str(locate(runner)), getattr(hook, "backend_args", options)
    yield runner.work_dir, options
