"""The published form of a checkpoint: chosen keys alone, with the hash of the file's bytes in its name.

``{name}-{sha8}.pth``, as `torch.hub` checks it. It is an artifact, not a checkpoint to resume from, so it has no
manifest; what it replaces, the published form of an earlier best, is removed once it is there.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING, Any

import anyio
import torch

from asynchooks.checkpoint import Content, open_store, restore
from asynchooks.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["publish", "published_pattern", "publishing"]


def publishing(
    addresses: Sequence[tuple[str | None, re.Pattern[str] | None]],
    keys: Sequence[str],
    *,
    options: Mapping[str, Any],
    logger: logging.Logger,
) -> BackgroundPart:
    """Return the background part that publishes checkpoints, one after the other.

    Args:
        addresses: the checkpoints, each with the names of published files that its own replaces; an address that is
            None was never claimed, and is passed over.
        keys: top-level keys that are kept.
        options: fsspec's options for the store.
        logger: the run's logger.
    """
    jobs = [
        partial(publish, url, keys, superseded=superseded, options=options, logger=logger)
        for url, superseded in addresses
        if url is not None
    ]

    async def publish_all() -> None:
        for job in jobs:
            await anyio.to_thread.run_sync(job)

    return publish_all


def publish(
    url: str,
    keys: Sequence[str],
    *,
    superseded: re.Pattern[str] | None,
    options: Mapping[str, Any],
    logger: logging.Logger,
) -> str | None:
    """Write the published form of one checkpoint and return its name. Blocks: in a worker thread.

    Args:
        url: the checkpoint.
        keys: top-level keys that are kept.
        superseded: names of published files that this one replaces.
        options: fsspec's options for the store.
        logger: the run's logger.

    Raises:
        CheckpointError: the checkpoint cannot be read, or the store refuses the file.
    """
    try:
        checkpoint = restore(url, map_location="cpu", storage_options=options)
    except CheckpointNotFoundError:
        logger.warning("%s is not published: it was never saved", url)
        return None
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        logger.warning(
            "%s is published without %s: it holds %s", url, ", ".join(missing), ", ".join(checkpoint)
        )
    buffer = io.BytesIO()
    torch.save({key: checkpoint[key] for key in keys if key in checkpoint}, buffer)
    folder, _, name = url.rpartition("/")
    store = open_store(folder, options)
    stem, dot, ending = name.rpartition(".")
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
    published = f"{stem}-{digest}.{ending}" if dot else f"{name}-{digest}"
    store.put(published, Content.of(buffer.getbuffer()))
    for entry in store.entries():
        if entry != published and superseded is not None and superseded.fullmatch(entry):
            store.delete(entry)
    logger.info("published %s/%s", store.url.rstrip("/"), published)
    return published


def published_pattern(prefix: str, template: str) -> re.Pattern[str]:
    """Return what the published names of one family of checkpoints look like, whatever their number."""
    pieces = [
        re.escape(literal) + ("" if number is None else r"\d+")
        for literal, number, _, _ in Formatter().parse(template)
    ]
    stem, dot, ending = "".join(pieces).rpartition(r"\.")
    numbered = rf"{stem}-[0-9a-f]{{8}}{dot}{ending}" if dot else rf"{ending}-[0-9a-f]{{8}}"
    return re.compile(re.escape(prefix) + numbered)
