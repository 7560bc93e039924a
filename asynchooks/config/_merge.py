"""How a child's entries change those of its base. Pure: neither side is changed.

Dicts merge, everything else replaces; ``_delete_=True`` replaces a dict; a dict of indices changes a list's items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError, UnknownNameError

__all__ = ["BASE", "DELETE", "DEPRECATION", "merged", "nested"]

BASE = "_base_"
DELETE = "_delete_"
DEPRECATION = "_deprecation_"


def merged(child: Mapping[str, Any], base: Mapping[str, Any], *, path: str = "") -> dict[str, Any]:
    """Return the base with the child merged into it.

    Args:
        child: what changes; wins.
        base: what is changed.
        path: where both stand, for messages.

    Raises:
        ConfigError: the child has a dict where the base has none.
        UnknownNameError: (a KeyError) an index lies outside of the base's list.
    """
    result = dict(base)
    for key, value in child.items():
        if key != DELETE:
            result[key] = (
                _over(value, result[key], _below(path, key)) if key in result else without_marks(value)
            )
    return result


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"a.b": 1}`` as ``{"a": {"b": 1}}``; what comes later wins.

    Raises:
        ConfigError: a key goes on below one that has a value.
    """
    result: dict[str, Any] = {}
    for full, value in options.items():
        *above, last = str(full).split(".")
        here: Any = result
        for name in above:
            here = here.setdefault(name, {})
            if not isinstance(here, dict):
                raise ConfigError(f"The option {full!r} goes below {name!r}, which another option sets.")
        here[last] = dict(value) if isinstance(value, Mapping) else value
    return result


def without_marks(value: Any) -> Any:
    """Return a value without ``_delete_``, which says nothing where there is nothing to delete."""
    if isinstance(value, Mapping):
        return {key: without_marks(each) for key, each in value.items() if key != DELETE}
    if type(value) in (list, tuple):
        return type(value)(map(without_marks, value))
    return value


def _over(child: Any, base: Any, path: str) -> Any:
    if not isinstance(child, Mapping) or child.get(DELETE):
        return without_marks(child)
    if isinstance(base, Mapping):
        return merged(child, base, path=path)
    if type(base) in (list, tuple) and child and all(str(key).isdigit() for key in child):
        return _with_items(child, base, path)
    raise ConfigError(
        f"{path} is a dict in the child and {base!r} ({type(base).__name__}) in the base. Set {DELETE}=True in the "
        f"child's dict to replace the base's value"
        + (", or give indices as keys." if _is_list(base) else ".")
    )


def _with_items(child: Mapping[str, Any], base: Any, path: str) -> Any:
    items = list(base)
    for key, value in child.items():
        index = int(key)
        if index >= len(items):
            raise UnknownNameError(f"{path} has {len(items)} items, so there is no {path}.{index} to change.")
        items[index] = _over(value, items[index], _below(path, key))
    return type(base)(items)


def _is_list(value: Any) -> bool:
    return type(value) in (list, tuple)


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
