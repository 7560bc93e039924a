"""A nested state as parts by names: those that DCP gives them, in dicts and lists that it gives back as they were.

Decides what stays one part with all that is in it: DCP makes every key of a dict a string, and leaves out empty ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["is_one_object", "is_odd", "name_of", "parts_of"]


def parts_of(
    value: Any, is_one: Callable[[tuple[Any, ...], Mapping[Any, Any]], bool], path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Walk the tensors, and what else is in a state, in its order, each with the keys on the way to it.

    Args:
        value: of the state, or in it. Lists are walked where there are tensors or dicts in them, as DCP does.
        is_one: whether a dict is one part, given the keys on the way to it.
        path: the keys on the way to the value.
    """
    if isinstance(value, Mapping) and not is_one(path, value):
        for key, inner in value.items():
            yield from parts_of(inner, is_one, (*path, key))
    elif isinstance(value, list) and _is_walked(value):
        for index, inner in enumerate(value):
            yield from parts_of(inner, is_one, (*path, index))
    else:
        yield path, value


def name_of(path: tuple[Any, ...]) -> str:
    """The name of a part in the checkpoint."""
    return ".".join(map(str, path))


def is_odd(mapping: Mapping[Any, Any]) -> bool:
    """Whether DCP would not give it back as it is."""
    return not mapping or not all(type(key) is str for key in mapping)


def is_one_object(mapping: Mapping[Any, Any]) -> bool:
    """Whether it is odd, and no tensor in it would be a part of its own."""
    if not is_odd(mapping):
        return False
    parts = parts_of(mapping, lambda *_: False)
    return not any(isinstance(part, torch.Tensor) for _, part in parts)


def _is_walked(values: list[Any]) -> bool:
    return any(
        isinstance(value, (Mapping, torch.Tensor)) or (isinstance(value, list) and _is_walked(value))
        for value in values
    )
