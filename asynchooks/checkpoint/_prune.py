"""Deleting what retention does not keep: the one place where committed checkpoints go.

Decides what is judged together (one run and group), what is protected beside the policy's choice (what a pointer
names, what is being replaced), and that what remains is whole before anything goes. Which ones go is
`_retention`'s decision, how one ceases to exist `_commit`'s.
"""

from __future__ import annotations

import logging
import time
from itertools import groupby
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import committed, find_committed, info_of, pointed_name
from asynchooks.checkpoint._commit import remove
from asynchooks.checkpoint._manifest import NEXT_SUFFIX, POINTERS
from asynchooks.checkpoint._owner import OWNER_FILE, Owner
from asynchooks.checkpoint._process import is_running
from asynchooks.checkpoint._restore._verify import verify_in
from asynchooks.checkpoint._retention import Verdict, judge
from asynchooks.checkpoint._storage import open_store, read_all, unlimited
from asynchooks.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest
    from asynchooks.checkpoint._retention import RetentionPolicy
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["judge_in", "prune", "remove_judged"]

logger = logging.getLogger(__name__)

_SILENT_S = 24 * 3600.0


def prune(
    url: str | os.PathLike[str] | Store,
    policy: RetentionPolicy,
    *,
    run_id: str | None = None,
    group: str | None = None,
    dry_run: bool = False,
    progress: Progress = unlimited,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Verdict]:
    """Delete the committed checkpoints of a folder that a policy does not keep. Blocks.

    Each run and group is judged on its own, as `Checkpointer` does after a save. Never deleted are the newest of
    each, what a pointer names, what a save or a removal under way (or cut short) concerns, and what a run that writes
    to the folder may save again: whatever lies at or after its last step. Where something is
    to go, the newest of that run and group, which then remains, is first read and verified.

    Args:
        url: the folder.
        policy: what to keep.
        run_id: judge and delete only this run's.
        group: judge and delete only this group's.
        dry_run: only judge.
        progress: told of the bytes that are read, and of 0 before each deletion; what it raises stops between two.
        storage_options: fsspec's, as in `Checkpointer`.

    Returns:
        A verdict on each checkpoint that was judged, run by run and group by group, oldest first.

    Raises:
        CorruptCheckpointError: a newest one is damaged; nothing of that run and group was deleted.
        StorageError: the store failed; a note says how many were deleted before.
    """
    store = open_store(url, storage_options)
    protected = _disturbed(store)  # before the manifests are read: what is begun in between is in neither
    writer = _writer(store)
    chosen = [
        manifest
        for manifest in committed(store)
        if run_id in (None, manifest.run_id) and group in (None, manifest.group)
    ]
    verdicts: list[Verdict] = []
    for _, together in groupby(sorted(chosen, key=_run_and_group), key=_run_and_group):
        manifests = list(together)
        judged = judge_in(store, policy, manifests, protected=protected)
        judged = [_beside_a_writer(verdict, writer) for verdict in judged]
        if not dry_run and any(verdict.goes for verdict in judged):
            verify_in(store, manifests[-1], progress)
            gone: set[str] = set()
            for info in remove_judged(store, manifests, judged, progress=progress, beside_others=True):
                logger.info("pruned %s", info.url)
                gone.add(info.save_id)
            judged = [_as_it_went(verdict, gone) for verdict in judged]
        verdicts += judged
    return verdicts


def judge_in(
    store: Store,
    policy: RetentionPolicy,
    manifests: Sequence[Manifest],
    *,
    protected: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """Judge the committed checkpoints of one run and group, oldest first; what a pointer names stays."""
    pointed = {
        name: f"{file} names it"
        for pointer, file in POINTERS.items()
        if (name := pointed_name(store, pointer)) is not None
    }
    infos = [info_of(store, manifest) for manifest in manifests]
    return list(judge(policy, infos, protected={**(protected or {}), **pointed}))


def remove_judged(
    store: Store,
    manifests: Sequence[Manifest],
    verdicts: Sequence[Verdict],
    *,
    progress: Progress,
    beside_others: bool = False,
) -> Iterator[CheckpointInfo]:
    """Delete what goes, oldest first, and yield each that is gone.

    Args:
        store: the folder.
        manifests: what was judged.
        verdicts: on each of them.
        progress: told of 0 before each deletion, and of 1 for each file of a sharded one that is gone; what it
            raises stops between two.
        beside_others: leave one alone that another process replaces or removes meanwhile.
    """
    by_save_id = {manifest.save_id: manifest for manifest in manifests}
    going = [verdict.info for verdict in verdicts if verdict.goes]
    for count, info in enumerate(going):
        progress(0)
        manifest = by_save_id[info.save_id]
        try:
            if beside_others and not _is_untouched(store, manifest):
                continue
            is_gone = remove(store, manifest, beside_others=beside_others, progress=progress)
        except CheckpointError as error:
            error.add_note(f"{count} of {len(going)} were deleted before.")
            raise
        if is_gone:
            yield info


def _writer(store: Store) -> Owner | None:
    """Who may be writing to the folder now: not who released it, who is gone, or who was silent for long."""
    try:
        owner = Owner.from_json(read_all(store, OWNER_FILE))
    except CheckpointNotFoundError:
        return None
    lives = is_running(owner.process)
    is_silent = lives is None and owner.renewed_s < time.time() - _SILENT_S
    return None if owner.released or lives is False or is_silent else owner


def _beside_a_writer(verdict: Verdict, writer: Owner | None) -> Verdict:
    """Keep what a run that writes to the folder may save again: its steps only grow."""
    if writer is None or not verdict.goes:
        return verdict
    if writer.step is not None and verdict.info.step < writer.step:
        return verdict
    return Verdict(verdict.info, (f"may be saved again by run {writer.run_id}, which writes here",))


def _is_untouched(store: Store, manifest: Manifest) -> bool:
    return manifest.name not in _disturbed(store) and find_committed(store, manifest.name) == manifest


def _as_it_went(verdict: Verdict, gone: Collection[str]) -> Verdict:
    if not verdict.goes or verdict.info.save_id in gone:
        return verdict
    return Verdict(verdict.info, ("replaced or removed meanwhile",))


def _disturbed(store: Store) -> dict[str, str]:
    """Names that a save or a removal under way, or cut short, concerns: their next manifest stands."""
    return {
        name.removesuffix(NEXT_SUFFIX): "being saved or removed, or that was cut short: sweep"
        for name in store.entries()
        if name.endswith(NEXT_SUFFIX)
    }


def _run_and_group(manifest: Manifest) -> tuple[str, str]:
    return manifest.run_id, manifest.group
