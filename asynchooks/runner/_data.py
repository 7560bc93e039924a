"""The batches of a run: pass after pass over a loader, with a position that a resumed run comes back to.

Decides how a position is described and reached again. What is skipped is skipped in the sampler, so that no
skipped sample is loaded; this works for every sampler whose random draws happen when a pass starts, or come
from a generator of its own. What worker processes draw on their own is not remembered.
"""

from __future__ import annotations

import copy
import itertools
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from asynchooks.data import restarts_of
from asynchooks.errors import ConfigError
from asynchooks.runner._offset import Offset, carried_over
from asynchooks.runner._random import restore_rng, rng_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BatchFeed", "dataset_of"]

logger = logging.getLogger(__name__)


class BatchFeed:
    """Draws batches from a loader and knows how far it is.

    Args:
        loader: a torch `DataLoader`, or any iterable of batches that can be iterated again.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.passes = 0
        self.drawn = 0
        self._offset = Offset()
        self._tracked, self._source = _tracked(loader)
        self._batches: Iterator[Any] | None = None
        self._start: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        self._restarts = restarts_of(loader)

    @property
    def is_resumed(self) -> bool:
        """Whether the next pass goes on in the middle, where a checkpoint was taken."""
        return self._resume is not None

    @property
    def left(self) -> int:
        """Batches that are left of the pass in which a checkpoint was taken; 0 where it was taken between passes."""
        if self._resume is None:
            return 0
        offset = Offset() if self._tracked is None else Offset.of(self._resume)
        done: int = self._resume["done"]
        return max(0, offset.length_of_pass(self.loader, _sampler(self.loader)) - done)

    def surplus(self, passes: int, batches: int) -> int:
        """Return how many batches there are beyond those of whole passes over the loader, which has a length.

        Other ranks, whose passes had another one, have drawn some of them.

        Args:
            passes: how many are done.
            batches: how many were drawn in all.
        """
        return batches + self.left - (passes + self.is_resumed) * len(self.loader)  # type: ignore[arg-type]

    def start_pass(self) -> None:
        """Begin a pass over the loader, or go on in the one that a checkpoint was taken in."""
        self._follow_restarts()
        if self._resume is not None:
            self._continue_pass(self._resume)
            self._resume = None
            return
        self.drawn, self._offset = 0, Offset()
        if self._tracked is None:
            self._start = self._generators_now()
        else:
            self._tracked.replay(None, 0)
        self._batches = iter(self._source)

    def end_pass(self) -> None:
        """Say that the pass is over: a position now stands between two passes."""
        self._batches = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise ConfigError("Call start_pass() before drawing a batch.")
        batch = next(self._batches)
        self.drawn += 1
        return batch

    def next_of_any_pass(self) -> Any:
        """Return the next batch; begin another pass where this one ends."""
        if self._batches is None:
            self.start_pass()
        try:
            return next(self)
        except StopIteration:
            self.passes += 1
            _set_epoch(self.loader, self.passes)
            self.start_pass()
        try:
            return next(self)
        except StopIteration:
            raise ConfigError("The train_dataloader yields no batch.") from None

    def state_dict(self, done: int) -> dict[str, Any]:
        """Return the position at which ``done`` batches of the pass that runs are done."""
        start = self._tracked.start if self._tracked else self._start
        is_in_pass = self._batches is not None and start is not None
        position = {
            "passes": self.passes,
            "done": done if is_in_pass else 0,
            "in_pass": is_in_pass,
            "generators": start if is_in_pass else self._generators_now(),
            "sampler_seed": getattr(_sampler(self.loader), "seed", None),
            **self._offset.state_dict(self.loader),
        }
        return (
            position if self._resume is None else {**position, "in_pass": True, **self._resume}
        )  # not there yet

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a position; the next `start_pass` goes there."""
        self.passes = state["passes"]
        self._batches = None
        sampler = _sampler(self.loader)
        if isinstance(state["sampler_seed"], int) and hasattr(sampler, "seed"):
            sampler.seed = state["sampler_seed"]
        if state["in_pass"]:
            self._resume = carried_over(state, self.loader, sampler)
        else:
            self._restore_generators(state["generators"])

    def skip_to(self, passes: int, done: int) -> None:
        """Take up a position of which only the numbers are known; random orders start anew."""
        self.passes = passes
        if passes or done:
            self._resume = {"done": done, "generators": None}

    def _follow_restarts(self) -> None:
        """Give up persistent workers where a hook has asked for new ones: those of the user's loader are others."""
        if isinstance(self._source, DataLoader) and isinstance(self.loader, DataLoader):
            # a hook may have changed it since
            self._source.worker_init_fn = self.loader.worker_init_fn
        if self._restarts != restarts_of(self.loader):
            self._restarts = restarts_of(self.loader)
            if isinstance(self._source, DataLoader):
                self._source._iterator = None  # noqa: SLF001 - as in restart_workers

    def _continue_pass(self, state: dict[str, Any]) -> None:
        self._offset = Offset.of(state)
        self.drawn, start = state["done"], state["generators"]
        if self.passes:  # a hook may have set the epoch that it knows, which counts no passes
            _set_epoch(self.loader, self.passes)
        if self._tracked is not None:
            if self._offset.samples:
                _sampler(self.loader).start_at(self._offset.samples)
            self._tracked.replay(start, self.drawn - self._offset.batches)
            self._batches = iter(self._source)
            self._tracked.begin()
            return
        logger.info("the data loader has no sampler to fast-forward: drawing %d batches to skip", self.drawn)
        if start is not None:
            restore_rng(start)
            self._restore_generators(start)
        self._start = start or self._generators_now()
        self._batches = iter(self._source)
        for _ in itertools.islice(self._batches, self.drawn):
            pass

    def _generators_now(self) -> dict[str, Any]:
        return {**rng_state(devices=False), "generators": [g.get_state() for g in _generators(self.loader)]}

    def _restore_generators(self, state: Mapping[str, Any]) -> None:
        for generator, saved in zip(_generators(self.loader), state["generators"], strict=False):
            generator.set_state(saved)


class _TrackedSampler:
    """Stands in for a loader's (batch) sampler; remembers the generators' states when a pass starts."""

    def __init__(self, sampler: Any, generators: list[torch.Generator]) -> None:
        self._sampler = sampler
        self._generators = generators
        self._current: _TrackedPass | None = None
        self._from: dict[str, Any] | None = None
        self._skip = 0
        self.start: dict[str, Any] | None = None

    def replay(self, start: dict[str, Any] | None, skip: int) -> None:
        """Let the next pass start with these states, and skip so many batches."""
        self._from, self._skip = start, skip

    def begin(self) -> None:
        """Start the pass now, if the loader has not done so yet by prefetching."""
        if self._current is not None:
            self._current.begin()

    def __iter__(self) -> Iterator[Any]:
        self._current = _TrackedPass(self)
        return self._current

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def open(self) -> Iterator[Any]:
        """Return the sampler's own iterator, started and moved to its position."""
        if self._from is not None:
            restore_rng(self._from)
            for generator, state in zip(self._generators, self._from["generators"], strict=False):
                generator.set_state(state)
        self.start = {**rng_state(devices=False), "generators": [g.get_state() for g in self._generators]}
        indices: Iterator[Any] = iter(self._sampler)
        for _ in itertools.islice(indices, self._skip):
            pass
        return indices


class _TrackedPass:
    """One pass over a tracked sampler; opens it at the first draw, as a plain loader would."""

    def __init__(self, sampler: _TrackedSampler) -> None:
        self._sampler = sampler
        self._indices: Iterator[Any] | None = None

    def begin(self) -> None:
        if self._indices is None:
            self._indices = self._sampler.open()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.begin()
        assert self._indices is not None  # noqa: S101 - begin() has just set it
        return next(self._indices)


def dataset_of(loader: Any) -> Any:
    """Return a loader's data set, or None."""
    return getattr(loader, "dataset", None)


def _tracked(loader: Any) -> tuple[_TrackedSampler | None, Iterable[Any]]:
    """Return a tracked sampler and a loader that uses it; the user's loader stays as it is."""
    if (
        not isinstance(loader, DataLoader)
        or type(loader).__iter__ is not DataLoader.__iter__
        or isinstance(loader.dataset, IterableDataset)
    ):
        return None, loader
    twin = copy.copy(loader)  # shares data set, workers' settings and collate function
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    tracked = _TrackedSampler(getattr(loader, name), _generators(loader))
    twin.__dict__[name] = tracked  # DataLoader refuses the assignment after construction
    return tracked, twin


def _sampler(loader: Any) -> Any:
    batch_sampler = getattr(loader, "batch_sampler", None)
    sampler = getattr(loader, "sampler", None)
    return sampler if hasattr(sampler, "seed") else getattr(batch_sampler, "sampler", sampler)


def _generators(loader: Any) -> list[torch.Generator]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found: list[torch.Generator] = []
    for owner in owners:
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not each for each in found):
            found.append(generator)
    return found


def _set_epoch(loader: Any, epoch: int) -> None:
    batch_sampler = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
        set_epoch = getattr(sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
            return
