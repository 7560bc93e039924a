"""Samplers of MMEngine's names, seeded by the epoch, and loaders built from dicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sized
from functools import partial
from typing import Any

import torch
from torch.utils import data
from torch.utils.data import DataLoader, Sampler

from asynchooks.distributed import is_distributed, rank, world_size
from asynchooks.errors import ConfigError
from asynchooks.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS, check_options, option_names
from asynchooks.runner._random import seed_worker
from asynchooks.runner._sharing import shared

__all__ = ["DefaultSampler", "InfiniteSampler", "build_dataloader", "check_dataloader"]

_FUNCTIONS = ("collate_fn", "worker_init_fn")


@DATA_SAMPLERS.register_module()
class DefaultSampler(Sampler[int]):
    """Every sample once per epoch; the order depends on the seed and the epoch alone. Ranks share the samples out.

    Args:
        dataset: anything with a length.
        shuffle: whether the order is random.
        seed: seed of the order, the same on all ranks; the run's seed where it is left out in a config.
        round_up: whether the first samples come once more, so that every rank has as many.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        seed: int | None = None,
        round_up: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        self._size = len(dataset)
        self.rank, self.world_size = rank(), world_size()
        self.shuffle = shuffle
        self.seed = seed or 0
        self.round_up = round_up
        self.epoch = 0
        self._start = 0

    def __iter__(self) -> Iterator[int]:
        order = list(range(self._size))
        if self.shuffle:
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = torch.randperm(self._size, generator=generator).tolist()
        start, self._start = self._start, 0
        order = order[start:]
        if self.round_up:
            order += itertools.islice(itertools.cycle(list(order)), -len(order) % self.world_size)
        return iter(order[self.rank :: self.world_size])

    def __len__(self) -> int:
        left = max(0, self._size - self._start)  # of the pass that begins next
        return -(-left // self.world_size) if self.round_up else len(range(self.rank, left, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        self.epoch = epoch

    def start_at(self, samples: int) -> None:
        """Let the next pass begin after so many samples of all ranks together, which other ranks have drawn."""
        self._start = samples


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler[int]):
    """Passes over the samples without an end, each pass in its own order. Ranks take turns.

    Args:
        dataset: anything with a length.
        shuffle: whether the orders are random.
        seed: seed of the orders, the same on all ranks; the run's seed where it is left out in a config.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:  # noqa: FBT001, FBT002
        self._size = len(dataset)
        self.rank, self.world_size = rank(), world_size()
        self.shuffle = shuffle
        self.seed = seed or 0
        self._start = 0

    def __iter__(self) -> Iterator[int]:
        if not self._size:
            raise ConfigError("An InfiniteSampler needs a data set with samples; this one is empty.")
        start, self._start = self._start, 0
        return itertools.islice(self._of_all_ranks(), start + self.rank, None, self.world_size)

    def __len__(self) -> int:
        return self._size

    def start_at(self, samples: int) -> None:
        """Let the next pass begin after so many samples of all ranks together, which other ranks have drawn."""
        self._start = samples

    def _of_all_ranks(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while True:
            if self.shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)


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
    if isinstance(cfg.get("batch_sampler"), Mapping):
        DATA_SAMPLERS.check(cfg["batch_sampler"], scope=scope, provided=("sampler", "batch_size"))
    for name in _FUNCTIONS:
        _function(cfg.get(name), scope)


def build_dataloader(cfg: Any, *, seed: int, mode: str = "train", scope: str | None = None) -> Any:
    """Return the loader that a dict describes, or the loader itself.

    On ranks, one of a dict shares its data, and its workers are seeded apart from those of other ranks where it
    names no ``worker_init_fn``.

    Args:
        cfg: a loader, or `DataLoader`'s arguments, of which ``dataset``, ``sampler``, ``batch_sampler``,
            ``collate_fn`` and ``worker_init_fn`` may be dicts.
        seed: the run's seed, for samplers that take one.
        mode: "train", "val" or "test": an evaluation counts no sample twice.
        scope: scope that is asked first for a bare name.
    """
    if not isinstance(cfg, Mapping):
        return cfg
    options = dict(cfg)
    if isinstance(options["dataset"], Mapping):
        options["dataset"] = DATASETS.build(options["dataset"], scope=scope)
    options = shared(options, mode, scope=scope)
    sampler = options.get("sampler")
    if isinstance(sampler, Mapping):
        known = {"dataset": options["dataset"], "data_source": options["dataset"], "seed": seed}
        provided = {name: known[name] for name in _sampler_arguments(sampler, scope)}
        options["sampler"] = DATA_SAMPLERS.build(sampler, scope=scope, **provided)
    if isinstance(options.get("batch_sampler"), Mapping):
        each = options.pop("sampler", None) or data.SequentialSampler(options["dataset"])
        batches = {"sampler": each, "batch_size": options.pop("batch_size", 1)}
        options["batch_sampler"] = DATA_SAMPLERS.build(options["batch_sampler"], scope=scope, **batches)
    options.update({name: _function(options[name], scope) for name in _FUNCTIONS if name in options})
    if is_distributed() and options.get("num_workers") and options.get("worker_init_fn") is None:
        options["worker_init_fn"] = partial(seed_worker, rank())
    return DataLoader(**options)


def _sampler_arguments(cfg: Mapping[str, Any], scope: str | None) -> list[str]:
    names, _ = option_names(DATA_SAMPLERS.resolve(cfg, scope=scope)[0])
    return [name for name in ("dataset", "data_source", "seed") if name in names]


def _function(cfg: Any, scope: str | None) -> Any:
    """Return the function that a dict names, with the dict's other entries as its arguments; else what came."""
    if not isinstance(cfg, Mapping):
        return cfg
    function, options = FUNCTIONS.resolve(cfg, scope=scope)
    return partial(function, **options) if options else function


for _class in (
    data.BatchSampler,
    data.RandomSampler,
    data.SequentialSampler,
    data.WeightedRandomSampler,
    data.SubsetRandomSampler,
    data.DistributedSampler,
):
    DATA_SAMPLERS.register_module(module=_class)
