"""The arguments of the logger hook, checked where they are given. Pure, but for the look for a package."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from typing import Any

from asynchooks.checkpoint import Mirror, store_options
from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean
from asynchooks.registry import option_names

__all__ = [
    "check_count",
    "check_flags",
    "check_sinks",
    "mirror_of",
    "reject_unknown",
    "resources",
]

_SINKS = ("terminal", "text", "json", "tensorboard")


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


def check_flags(**flags: Any) -> None:
    """Raise `TypeError` for the first of the arguments that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"LoggerHook({name}={value!r}): give True or False.")


def check_sinks(sinks: Any) -> tuple[str, ...] | None:
    """Return the names of the sinks, None for the usual ones; the packages that they need are there."""
    if sinks is None:
        return None
    names = (sinks,) if isinstance(sinks, str) else tuple(sinks)
    for name in names:
        if name not in _SINKS:
            raise UnknownOptionError(
                f"LoggerHook(sinks={sinks!r}): there is no sink {name!r}.{did_you_mean(str(name), _SINKS)} "
                f"There are {', '.join(_SINKS)}."
            )
    if "tensorboard" in names and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "LoggerHook(sinks=[..., 'tensorboard']) needs the package tensorboard: "
            "pip install 'asynchooks[tensorboard]'."
        )
    return names


def resources(sinks: Iterable[str] | None, *, is_mirrored: bool) -> set[str]:
    """Return the external resources that a hook with these sinks writes; a visualizer is always one of them."""
    written = {"logs.visualizer"} | ({"logs.remote"} if is_mirrored else set())
    return written | {f"logs.{sink}" for sink in ("terminal", "text") if sinks is None or sink in sinks}


def mirror_of(
    out_dir: Any,
    out_suffix: Any,
    backend_args: Any,
    file_client_args: Any,
    *,
    keep_local: bool,
    interval_s: float,
) -> Mirror | None:
    """Return the remote copy that the arguments ask for.

    Raises:
        ConfigError: logs would be kept neither here nor there, or options came without a store.
        TypeError: a value of the wrong type.
    """
    suffixes = _suffixes(out_suffix)
    if out_dir is None:
        if not keep_local:
            raise ConfigError("LoggerHook(keep_local=False) needs out_dir; otherwise the logs would be lost.")
        if file_client_args is not None or backend_args is not None:
            raise ConfigError(
                "LoggerHook(backend_args=...) are options of out_dir's store; out_dir is missing."
            )
        return None
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float) or interval_s <= 0:
        raise ConfigError(f"LoggerHook(sync_interval_s={interval_s!r}): give a number of seconds above 0.")
    return Mirror(
        _address(out_dir),
        suffixes=suffixes,
        options=store_options("LoggerHook", backend_args, file_client_args),
        keep_local=keep_local,
        interval_s=interval_s,
    )


def _address(out_dir: Any) -> str:
    if not isinstance(out_dir, str | os.PathLike):
        raise TypeError(
            f"LoggerHook(out_dir={out_dir!r}): give a folder or a URL such as 's3://bucket/logs'."
        )
    return os.fspath(out_dir)


def _suffixes(suffixes: str | Sequence[str]) -> tuple[str, ...]:
    endings = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    if not all(isinstance(ending, str) for ending in endings):
        raise TypeError(
            f"LoggerHook(out_suffix={suffixes!r}): give an ending such as '.log', or a list of them."
        )
    return endings
