"""Numbers that averages take, checked where they are given. Pure."""

from __future__ import annotations

from typing import Any

from asynchooks.errors import ConfigError

__all__ = ["checked_count", "checked_fraction"]


def checked_fraction(owner: str, name: str, value: Any) -> float:
    """Return a number between 0 and 1.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"{owner}: {name} lies between 0 and 1, not {value!r}.")
    return value


def checked_count(owner: str, name: str, value: Any, *, least: int) -> int:
    """Return an int of at least so much.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{owner}: {name} is an int of at least {least}, not {value!r}.")
    return value
