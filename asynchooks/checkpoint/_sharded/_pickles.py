"""Objects as ``torch.save`` writes them; small ones that come again and again are pickled once.

Decides which objects are known by their value: an optimizer's state by parameter names holds a dozen numbers for each
parameter, the same ones in every save, and ``torch.save`` takes 30 us for each.
"""

from __future__ import annotations

import io
from typing import Any

import torch

__all__ = ["pickled"]

_ATOMS = (int, float, bool, str, type(None))
_MAX_KNOWN = 4096
_MAX_TEXT = 256
_MAX_ITEMS = 8

_known: dict[str, bytes] = {}


def pickled(value: Any) -> bytes:
    """The bytes that ``torch.save`` writes of an object. Any thread."""
    if not _is_small(value):
        return _saved(value)
    key = repr(value)  # tells 1 from True and 1.0, and 0.0 from -0.0, which are equal
    found = _known.get(key)
    if found is None:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()  # a step's number is a new one each time
        found = _known[key] = _saved(value)
    return found


def _is_small(value: Any) -> bool:
    if type(value) is tuple:
        return len(value) <= _MAX_ITEMS and all(type(item) in _ATOMS and _is_short(item) for item in value)
    return type(value) in _ATOMS and _is_short(value)


def _is_short(value: Any) -> bool:
    return type(value) is not str or len(value) <= _MAX_TEXT


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()
