"""Functions that make a batch of samples, under the names that configurations use for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate

from asynchooks.registry import FUNCTIONS

__all__ = ["pseudo_collate"]


def pseudo_collate(samples: Sequence[Any]) -> Any:
    """Return a batch of the shape of one sample, with a sequence of the samples' values at each leaf.

    Nothing is stacked or turned into a tensor: what the values have in common is for the model to know.

    Args:
        samples: at least one; dicts, sequences and named tuples at any depth, all alike.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        batch = {key: pseudo_collate([sample[key] for sample in samples]) for key in first}
        return batch if type(first) is dict else _like(first, batch)
    if isinstance(first, str | bytes) or not isinstance(first, Sequence):
        return samples
    columns = [pseudo_collate(column) for column in zip(*samples, strict=True)]
    if isinstance(first, tuple):
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    return _like(first, columns)


def _like(first: Any, content: Any) -> Any:
    try:
        return type(first)(content)
    except TypeError:  # a class that is built in another way
        return content


for _function in (default_collate, pseudo_collate):
    FUNCTIONS.register_module(module=_function)
