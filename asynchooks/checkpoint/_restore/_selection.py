"""Which part of a state is wanted, by the names of its entries.

Decides what a name such as ``state_dict.backbone`` selects. Pure: dicts in, dicts out, values untouched.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from asynchooks.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["check_keys", "select"]


def check_keys(keys: Iterable[str] | None) -> tuple[str, ...] | None:
    """The names as a tuple.

    Raises:
        TypeError: they are no list of names.
    """
    if keys is None:
        return None
    names = () if isinstance(keys, str) else tuple(keys)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"keys is a list of names such as ['state_dict', 'optimizer.state.0'], not {keys!r}")
    return names


def select(state: dict[Any, Any], keys: tuple[str, ...], where: str) -> dict[Any, Any]:
    """The same nested dicts with the named entries alone.

    An entry's name is its keys on the way from the top, joined by dots. A key selects the entry of that name, with
    all that is in it, and every entry whose name goes on after it with a dot: ``state_dict.backbone`` selects
    ``state["state_dict"]["backbone.0.weight"]`` and not ``["backbone2.weight"]``. Keys that are no strings or
    integers have no name.

    Raises:
        UnknownNameError: a key selects nothing.
    """
    met: set[str] = set()
    selected = _select(state, "", keys, met)
    for key in keys:
        if key not in met:
            known = list(_names(state, "", 2))
            raise UnknownNameError(
                f"{where} has no entry {key!r}.{did_you_mean(key, known)} "
                f"At the top it has {sorted(map(str, state))[:20]}."
            )
    return selected


def _select(node: dict[Any, Any], prefix: str, keys: tuple[str, ...], met: set[str]) -> dict[Any, Any]:
    kept = type(node)() if type(node) in (dict, OrderedDict) else {}
    if isinstance(node, OrderedDict):
        kept.__dict__.update(node.__dict__)  # a module's state_dict carries `_metadata` there
    for key, value in node.items():
        if not isinstance(key, (str, int)):
            continue
        name = f"{prefix}{key}"
        hits = [each for each in keys if name == each or name.startswith(f"{each}.")]
        met.update(hits)
        if hits:
            kept[key] = value
        elif isinstance(value, dict) and any(each.startswith(f"{name}.") for each in keys):
            inner = _select(value, f"{name}.", keys, met)
            if inner:
                kept[key] = inner
    return kept


def _names(node: Any, prefix: str, depth: int) -> Iterator[str]:
    if depth and isinstance(node, dict):
        for key, value in node.items():
            if isinstance(key, (str, int)):
                yield f"{prefix}{key}"
                yield from _names(value, f"{prefix}{key}.", depth - 1)
