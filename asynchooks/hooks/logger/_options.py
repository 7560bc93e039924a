"""The arguments of the logger hook, checked where they are given. Pure, but for the look for a package."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from typing import Any

from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean
from asynchooks.registry import option_names

__all__ = [
    "check_count",
    "check_out_dir",
    "check_sinks",
    "check_suffixes",
    "nowhere_to_keep",
    "reject_unknown",
    "resources",
]

_RESOURCES = {
    "terminal": "logs.terminal",
    "text": "logs.text",
    "json": "logs.json",
    "tensorboard": "logs.tensorboard",
}


def reject_unknown(unknown: Iterable[str], hook: type) -> None:
    """Raise `UnknownOptionError` for the first argument that the hook does not take."""
    for name in unknown:
        names = option_names(hook)[0]
        raise UnknownOptionError(f"{hook.__name__} has no argument {name!r}.{did_you_mean(name, names)}")


def check_count(name: str, value: Any, *, least: int) -> int:
    """Return an int argument that is at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"LoggerHook({name}={value!r}): give a number of iterations.")
    if value < least:
        raise ConfigError(f"LoggerHook({name}={value}): give a number of iterations >= {least}.")
    return value


def check_sinks(sinks: Any) -> tuple[str, ...]:
    """Return the names of the sinks; the packages that they need are there."""
    names = (sinks,) if isinstance(sinks, str) else tuple(sinks)
    for name in names:
        if name not in _RESOURCES:
            raise UnknownOptionError(
                f"LoggerHook(sinks={sinks!r}): there is no sink {name!r}.{did_you_mean(str(name), _RESOURCES)} "
                f"There are {', '.join(_RESOURCES)}."
            )
    if "tensorboard" in names and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "LoggerHook(sinks=[..., 'tensorboard']) needs the package tensorboard: "
            "pip install 'asynchooks[tensorboard]'."
        )
    return names


def resources(sinks: Iterable[str], *, remote: bool) -> set[str]:
    """Return the external resources that the sinks write."""
    return {_RESOURCES[sink] for sink in sinks} | ({"logs.remote"} if remote else set())


def check_out_dir(out_dir: Any) -> str:
    """Return the address of the remote copy."""
    if not isinstance(out_dir, str | os.PathLike):
        raise TypeError(
            f"LoggerHook(out_dir={out_dir!r}): give a folder or a URL such as 's3://bucket/logs'."
        )
    return os.fspath(out_dir)


def check_suffixes(suffixes: str | Sequence[str]) -> tuple[str, ...]:
    """Return the endings of the files that are copied."""
    endings = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    if not all(isinstance(ending, str) for ending in endings):
        raise TypeError(
            f"LoggerHook(out_suffix={suffixes!r}): give an ending such as '.log', or a list of them."
        )
    return endings


def nowhere_to_keep() -> ConfigError:
    """Return the error for logs that would be kept neither here nor there."""
    return ConfigError("LoggerHook(keep_local=False) needs out_dir; otherwise the logs would be lost.")
