"""Opening the folder of a run's checkpoints: its address, the run's id, the ranks that save there, a first check."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import open_store
from asynchooks.distributed import broadcast_object, found_by_first, tried_by_all
from asynchooks.errors import ConfigError
from asynchooks.hooks.checkpoint._folder import Folder
from asynchooks.hooks.checkpoint._ranks import open_party

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.hooks.checkpoint._ranks import Form

__all__ = ["folder_url", "open_folder"]


def folder_url(out_dir: str | None, work_dir: str | None) -> str:
    """Return the folder or URL of a run's checkpoints: the run's own, or a folder of its name in ``out_dir``.

    Raises:
        ConfigError: neither is there.
    """
    if out_dir is None and work_dir is None:
        raise ConfigError(
            "CheckpointHook: there is no folder to save to; give out_dir, or the run a work_dir."
        )
    if work_dir is None or out_dir is None or out_dir == work_dir:
        return str(out_dir or work_dir)
    return f"{out_dir.rstrip('/')}/{Path(work_dir).absolute().name}"


def open_folder(
    url: str, options: Mapping[str, Any], runner: Any, *, form: Form, deadline_s: float
) -> Folder:
    """Return the folder of a run's checkpoints, after checking that its store takes them. Blocks; a collective.

    Raises:
        ConfigError: an option or protocol that does not exist.
        StorageError: the store refuses or is not there.
        RankFailedError: another rank has found so.
    """
    hub, work_dir = runner.message_hub, getattr(runner, "work_dir", None)
    if hub.get_info("run_id") is None:
        hub.update_info("run_id", broadcast_object(uuid.uuid4().hex))
    is_elsewhere = work_dir is not None and "://" not in work_dir and work_dir != url
    store = tried_by_all(
        "open the folder of the checkpoints", partial(open_store, url, options, deadline_s=deadline_s)
    )
    party = open_party(store.url, deadline_s=deadline_s) if form == "sharded" else None
    try:
        folder = Folder(
            store,
            hub.get_info("run_id"),
            deadline_s=deadline_s,
            party=party,
            named_in=work_dir if is_elsewhere else None,
        )
        found_by_first(f"check {store.url}", folder.check)
    except BaseException:
        if party is not None:
            party.meeting.close()
        raise
    return folder
