"""The configuration of a run as the text that Pavi shows with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from asynchooks.config import Config

__all__ = ["session_text"]


def session_text(meta: Mapping[str, Any] | None, max_iters: int | None) -> str | None:
    """Return a run's configuration as YAML, with its number of iterations; None where its notes have none.

    Args:
        meta: the run's notes: its configuration in ``config_dict``, or its file in ``config_file``.
        max_iters: iterations of the run.

    Raises:
        TypeError: ``config_dict`` is no dict.
    """
    notes = meta or {}
    config = notes.get("config_dict")
    if config is None and "config_file" in notes:
        config = dict(Config.fromfile(notes["config_file"]))
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise TypeError(f"PaviLoggerHook: meta['config_dict'] is a dict, not a {type(config).__name__}.")
    return str(yaml.safe_dump(_plain({"max_iter": max_iters, **config})))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | None) else str(value)
