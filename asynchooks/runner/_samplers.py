"""Samplers of MMEngine's names, seeded by the epoch, and loaders built from dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

import torch
from torch.utils import data
from torch.utils.data import DataLoader, Sampler

from asynchooks.errors import ConfigError
from asynchooks.registry import DATA_SAMPLERS, DATASETS, check_options, option_names

__all__ = ["DefaultSampler", "InfiniteSampler", "build_dataloader", "check_dataloader"]


@DATA_SAMPLERS.register_module()
class DefaultSampler(Sampler[int]):
    """Every sample once per epoch; the order depends on the seed and the epoch alone.

    Args:
        dataset: anything with a length.
        shuffle: whether the order is random.
        seed: seed of the order; the run's seed where it is left out in a config.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:  # noqa: FBT001, FBT002
        self._size = len(dataset)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self._size))
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        return iter(torch.randperm(self._size, generator=generator).tolist())

    def __len__(self) -> int:
        return self._size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler[int]):
    """Passes over the samples without an end, each pass in its own order.

    Args:
        dataset: anything with a length.
        shuffle: whether the orders are random.
        seed: seed of the orders; the run's seed where it is left out in a config.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:  # noqa: FBT001, FBT002
        self._size = len(dataset)
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        if not self._size:
            raise ConfigError("An InfiniteSampler needs a data set with samples; this one is empty.")
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while True:
            if self.shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)

    def __len__(self) -> int:
        return self._size


def check_dataloader(cfg: Any, *, scope: str | None = None) -> None:
    """Raise what `build_dataloader` would raise about names and options, without building a data set."""
    if cfg is None or not isinstance(cfg, Mapping):
        if cfg is not None and not hasattr(cfg, "__iter__"):
            raise ConfigError(f"A dataloader is a DataLoader, an iterable of batches or a dict, not {cfg!r}.")
        return
    if "dataset" not in cfg:
        raise ConfigError(f"A dataloader's dict needs the key 'dataset'; it has {list(cfg)}.")
    check_options(DataLoader, cfg)
    if isinstance(cfg["dataset"], Mapping):
        DATASETS.check(cfg["dataset"], scope=scope)
    if isinstance(cfg.get("sampler"), Mapping):
        DATA_SAMPLERS.check(cfg["sampler"], scope=scope, provided=_sampler_arguments(cfg["sampler"], scope))


def build_dataloader(cfg: Any, *, seed: int, scope: str | None = None) -> Any:
    """Return the loader that a dict describes, or the loader itself.

    Args:
        cfg: a loader, or `DataLoader`'s arguments in which ``dataset`` and ``sampler`` may be dicts.
        seed: the run's seed, for samplers that take one.
        scope: scope that is asked first for a bare name.
    """
    if not isinstance(cfg, Mapping):
        return cfg
    options = dict(cfg)
    if isinstance(options["dataset"], Mapping):
        options["dataset"] = DATASETS.build(options["dataset"], scope=scope)
    sampler = options.get("sampler")
    if isinstance(sampler, Mapping):
        known = {"dataset": options["dataset"], "data_source": options["dataset"], "seed": seed}
        provided = {name: known[name] for name in _sampler_arguments(sampler, scope)}
        options["sampler"] = DATA_SAMPLERS.build(sampler, scope=scope, **provided)
    return DataLoader(**options)


def _sampler_arguments(cfg: Mapping[str, Any], scope: str | None) -> list[str]:
    names, _ = option_names(DATA_SAMPLERS.resolve(cfg, scope=scope)[0])
    return [name for name in ("dataset", "data_source", "seed") if name in names]


for _class in (
    data.RandomSampler,
    data.SequentialSampler,
    data.WeightedRandomSampler,
    data.SubsetRandomSampler,
):
    DATA_SAMPLERS.register_module(module=_class)
