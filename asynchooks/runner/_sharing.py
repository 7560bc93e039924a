"""How ranks share the data of a loader: the sampler of a dict that names none, and loaders that do not share.

A shared evaluation counts every sample once, so its ranks may have different numbers of batches; in training each
rank has as many, and the first samples come once more where they do not divide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from asynchooks.distributed import is_distributed, is_first_rank, world_size
from asynchooks.registry import DATA_SAMPLERS

__all__ = ["shared", "warn_unless_shared"]

logger = logging.getLogger(__name__)

_MARKS = ("num_replicas", "world_size", "num_shards")  # of torch's, MMEngine's and others' samplers


def shared(cfg: Mapping[str, Any], mode: str, *, scope: str | None) -> dict[str, Any]:
    """Return a loader's arguments with which ranks share its data, as MMEngine's runner does. One rank keeps them.

    Args:
        cfg: `DataLoader`'s arguments, with the data set built.
        mode: "train", "val" or "test".
        scope: scope that is asked first for a bare name.
    """
    options = dict(cfg)
    if not is_distributed() or isinstance(options["dataset"], IterableDataset):
        return options
    if options.get("sampler") is None and options.get("batch_sampler") is None:
        options["sampler"] = {"type": "DefaultSampler", "shuffle": bool(options.pop("shuffle", False))}
    sampler = options.get("sampler")
    if mode != "train" and isinstance(sampler, Mapping) and _is_default(sampler, scope):
        options["sampler"] = {"round_up": False, **sampler}
    return options


def warn_unless_shared(loader: Any, mode: str) -> None:
    """Say loudly that every rank draws the same samples from a loader, or that an evaluation counts some twice."""
    if not is_distributed() or not isinstance(loader, DataLoader):
        return
    if isinstance(loader.dataset, IterableDataset) or not is_first_rank():
        return
    samplers = [each for each in _samplers(loader) if any(hasattr(each, mark) for mark in _MARKS)]
    if not samplers:
        logger.warning(
            "%s_dataloader: every one of the %d ranks draws all samples, since the loader's %s does not share them; "
            "give it sampler=DefaultSampler(dataset), or the loader as a dict(dataset=..., batch_size=...).",
            mode,
            world_size(),
            type(loader.sampler).__name__,
        )
    elif mode != "train" and _pads(samplers[0]) and len(loader.dataset) % world_size():  # type: ignore[arg-type]
        logger.warning(
            "%s_dataloader: the %d samples are filled up to a multiple of %d ranks, so some are counted twice; give "
            "it sampler=DefaultSampler(dataset, shuffle=False, round_up=False).",
            mode,
            len(loader.dataset),  # type: ignore[arg-type]
            world_size(),
        )


def _samplers(loader: DataLoader[Any]) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    return [each for each in (loader.sampler, batch_sampler, inner) if each is not None]


def _is_default(cfg: Mapping[str, Any], scope: str | None) -> bool:
    return getattr(DATA_SAMPLERS.resolve(cfg, scope=scope)[0], "__name__", "") == "DefaultSampler"


def _pads(sampler: Any) -> bool:
    return bool(getattr(sampler, "round_up", not getattr(sampler, "drop_last", False)))
