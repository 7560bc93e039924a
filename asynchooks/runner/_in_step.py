"""Batches of an evaluation whose ranks must call the model equally often: a sharded model gathers in each forward.

Ranks may have different numbers of batches, since no sample is counted twice. One that has none left runs the
model on the last batch until all are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from asynchooks.optim import is_sharded
from asynchooks.runner._agreement import gathered, told

__all__ = ["InStep"]


class InStep:
    """Yields a loader's batches; where the model is sharded, calls it as often as the rank with the most batches.

    Args:
        batches: this rank's loader.
        model: the model.
        run: runs the model on a batch and keeps nothing.
    """

    def __init__(self, batches: Iterable[Any], model: nn.Module, run: Callable[[Any], None]) -> None:
        self._batches = batches
        self._is_needed = is_sharded(model)
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        if not self._is_needed:
            yield from self._batches
            return
        batches = iter(self._batches)
        last = _NONE
        is_first = True
        while True:
            batch = next(batches, _NONE)
            have = gathered(batch is not _NONE)
            if not any(have):
                return
            if is_first and not all(have):  # a rank without any batch borrows one
                last = told(batch, source=have.index(True))
            is_first = False
            if batch is _NONE:
                self._run(last)
            else:
                last = batch
                yield batch


class _Nothing:
    pass


_NONE: Any = _Nothing()
