"""What stands in a set of scalars: numbers by name, and lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["MODE", "json_line", "numbers_by_name"]

MODE = "mode"


def numbers_by_name(scalars: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the numbers among the scalars; tensors and arrays of one element count as numbers.

    An entry ``mode`` ("train", "val", "test") says what the numbers belong to and is put before their names, where
    it does not stand there yet: a backend keeps one curve per name, and the loss of a validation, filed under its
    epoch, is no point of the training's.
    """
    mode = scalars.get(MODE)
    prefix = f"{mode}/" if isinstance(mode, str) else ""
    found: dict[str, int | float] = {}
    for name, value in scalars.items():
        number = _number(value)
        if number is not None:
            found[name if name.startswith(prefix) else prefix + name] = number
    return found


def json_line(scalars: Mapping[str, Any]) -> bytes:
    """Return the scalars as one line of standard JSON.

    A number that is not finite is written as a string, "nan"; arrays and tensors as lists; what JSON cannot hold as
    text.
    """
    return (json.dumps(_finite(dict(scalars)), default=_plain) + "\n").encode()


def _number(value: Any) -> int | float | None:
    if isinstance(value, int | float):
        return value
    size = getattr(value, "size", None)
    count = size() if callable(size) else size  # a tensor's is its shape, an array's the number of elements
    if hasattr(value, "item") and (count == 1 or (isinstance(count, tuple) and math.prod(count) == 1)):
        item = value.item()
        return item if isinstance(item, int | float) else None
    return None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _plain(value: Any) -> Any:
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return _finite(getattr(value, method)())
    return str(value)
