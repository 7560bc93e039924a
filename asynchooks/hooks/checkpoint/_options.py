"""The arguments of the checkpoint hook, checked where they are given. Pure.

A slip that could only show at the first save, after an epoch of training, is an error here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from asynchooks.errors import ConfigError, UnknownOptionError, UnsafePathError, did_you_mean
from asynchooks.hooks.checkpoint._best import AUTO
from asynchooks.registry import option_names

__all__ = [
    "check_count",
    "check_seconds",
    "check_template",
    "check_word",
    "metric_names",
    "published",
    "reject_unknown",
]

_MOVED = {
    "create_symlink": " A pointer file, last_checkpoint, is always written instead of a symbolic link.",
    "sync_buffer": " Register SyncBuffersHook to synchronize buffers between ranks before a save.",
    "sync_buffers": " Register SyncBuffersHook to synchronize buffers between ranks before a save.",
}


def reject_unknown(unknown: Iterable[str], hook: type) -> None:
    """Raise `UnknownOptionError` for the first argument that the hook does not take."""
    for name in unknown:
        hint = _MOVED.get(name) or did_you_mean(name, option_names(hook)[0])
        raise UnknownOptionError(f"{hook.__name__} has no argument {name!r}.{hint}")


def check_word(name: str, value: Any, words: tuple[str, ...]) -> Any:
    """Return an argument that is one of a few words."""
    if value not in words:
        raise UnknownOptionError(
            f"CheckpointHook({name}={value!r}): give {' or '.join(map(repr, words))}."
            f"{did_you_mean(str(value), words)}"
        )
    return value


def check_count(name: str, value: Any, *, least: int, meaning: str) -> int:
    """Return an int argument that is at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"CheckpointHook({name}={value!r}): give an int, {meaning}.")
    if value < least:
        raise ConfigError(f"CheckpointHook({name}={value}): give an int >= {least}, {meaning}.")
    return value


def check_seconds(name: str, value: Any) -> float:
    """Return a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"CheckpointHook({name}={value!r}): give a number of seconds.")
    if not value > 0:
        raise ConfigError(f"CheckpointHook({name}={value}): give a number of seconds above 0.")
    return float(value)


def check_template(template: str | None, *, by_epoch: bool) -> str:
    """Return the template of file names, which must take one number and stay in its folder."""
    if template is None:
        return "epoch_{}.pth" if by_epoch else "iter_{}.pth"
    if not isinstance(template, str):
        raise TypeError(
            f"CheckpointHook(filename_tmpl={template!r}): give a string such as 'epoch_{{}}.pth'."
        )
    try:
        names = template.format(1), template.format(2)
    except (IndexError, KeyError, ValueError):
        names = "", ""
    if names[0] == names[1]:
        raise ConfigError(
            f"CheckpointHook(filename_tmpl={template!r}): the name needs one place for the number, as in "
            f"'step_{{}}.pth'; otherwise every checkpoint would replace the one before."
        )
    if "/" in template or os.sep in template or template.startswith("."):
        raise UnsafePathError(
            f"CheckpointHook(filename_tmpl={template!r}): give a file name; the folder is out_dir."
        )
    return template


def metric_names(save_best: Any) -> tuple[str, ...]:
    """Return ``save_best`` as a tuple of metrics; empty where no best checkpoint is wanted."""
    if save_best is None:
        return ()
    metrics = (save_best,) if isinstance(save_best, str) else save_best
    if not isinstance(metrics, list | tuple) or not metrics or not all(isinstance(m, str) for m in metrics):
        raise TypeError(
            f"CheckpointHook(save_best={save_best!r}): give a metric's name, a list of names, or 'auto'."
        )
    if len(set(metrics)) != len(metrics):
        raise ConfigError(f"CheckpointHook(save_best={save_best!r}): a metric stands there twice.")
    if AUTO in metrics and len(metrics) > 1:
        raise ConfigError(
            f"CheckpointHook(save_best={save_best!r}): 'auto' takes the first metric of the first validation and "
            f"stands alone."
        )
    return tuple(metrics)


def published(keys: Any) -> tuple[str, ...]:
    """Return ``published_keys`` as a tuple; empty where nothing is published."""
    if keys is None:
        return ()
    names = (keys,) if isinstance(keys, str) else keys
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"CheckpointHook(published_keys={keys!r}): give a key of the checkpoint or a list of keys."
        )
    if len(set(names)) != len(names):
        raise ConfigError(f"CheckpointHook(published_keys={keys!r}): a key stands there twice.")
    return tuple(names)
