"""`ConfigDict`: a dict whose entries are attributes too, all the way down.

Decides nothing about inheritance. A dict and not a wrapper, so that whatever takes a dict takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from asynchooks.config._merge import merged
from asynchooks.errors import did_you_mean

__all__ = ["ConfigDict", "plain", "with_attributes"]


class ConfigDict(dict[str, Any]):
    """A dict with attribute access; dicts that come in, also inside lists and tuples, become such dicts.

    A method wins over an entry of its name: ``cfg["items"]`` is the entry, ``cfg.items`` the method.

    Raises:
        AttributeError: no entry has this name; the message suggests the nearest.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, with_attributes(value))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            hint = "" if name.startswith("_") else did_you_mean(name, map(str, self))
            raise AttributeError(f"The configuration has no entry {name!r} here.{hint}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(
                f"{name!r} is a method of a configuration; write cfg[{name!r}] = ... for the entry."
            )
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"The configuration has no entry {name!r} here.") from None

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]  # dict's own takes pairs too
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the entry; without one, make it the default."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take over entries; dicts that both sides have are updated and not replaced, as in MMEngine."""
        for key, value in dict(*args, **kwargs).items():
            mine = self.get(key)
            if isinstance(mine, ConfigDict) and isinstance(value, Mapping):
                mine.update(value)
            else:
                self[key] = value

    def merge(self, other: Mapping[str, Any]) -> None:
        """Merge another dict into this one, as a child file is merged into its base (``_delete_`` included)."""
        result = merged(other, self)
        self.clear()
        for key, value in result.items():
            self[key] = value

    def copy(self) -> Self:
        """Return a copy that shares the values."""
        return type(self)(self)

    __copy__ = copy

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, all the way down."""
        return {key: plain(value) for key, value in self.items()}


def with_attributes(value: Any) -> Any:
    """Return a value whose plain dicts, also inside lists and tuples, are `ConfigDict`."""
    if type(value) is dict:
        return ConfigDict(value)
    if type(value) in (list, tuple):
        return type(value)(map(with_attributes, value))
    return value


def plain(value: Any) -> Any:
    """Return a value whose dicts, also inside lists and tuples, are plain ones."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value
