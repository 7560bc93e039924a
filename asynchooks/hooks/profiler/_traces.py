"""What becomes of a finished trace: a table in the log, a file for TensorBoard, or what a function makes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean

__all__ = ["TraceHandler", "check_handler", "handler_for"]

TraceHandler: TypeAlias = Callable[[Any], object]

_TYPES = ("log_trace", "tb_trace")


def check_handler(on_trace_ready: Any) -> None:
    """Check the argument ``on_trace_ready``.

    Raises:
        ConfigError: it is neither None nor a function nor ``dict(type=...)``.
        UnknownNameError: (a KeyError) a type that there is not.
    """
    if on_trace_ready is None or callable(on_trace_ready):
        return
    if not isinstance(on_trace_ready, Mapping) or "type" not in on_trace_ready:
        raise ConfigError(
            f"ProfilerHook(on_trace_ready={on_trace_ready!r}): give a function of the profiler, or dict(type=...) "
            f"with one of {', '.join(_TYPES)}."
        )
    if on_trace_ready["type"] not in _TYPES:
        raise UnknownNameError(
            f"ProfilerHook(on_trace_ready={dict(on_trace_ready)!r}): the type is one of {', '.join(_TYPES)}."
            f"{did_you_mean(str(on_trace_ready['type']), _TYPES)}"
        )


def handler_for(on_trace_ready: TraceHandler | Mapping[str, Any] | None, runner: Any) -> TraceHandler | None:
    """Return the function that takes a finished trace, for one run; it may run in any thread.

    Raises:
        ConfigError: traces for TensorBoard have no folder.
    """
    if on_trace_ready is None or callable(on_trace_ready):
        return on_trace_ready
    options = dict(on_trace_ready)
    if options.pop("type") == "log_trace":
        return partial(_log_table, options=options, logger=runner.logger)
    options["dir_name"] = _folder(options.get("dir_name", "tf_tracing_logs"), runner)
    runner.logger.info("ProfilerHook: traces go to %s.", options["dir_name"])
    handler: TraceHandler = torch.profiler.tensorboard_trace_handler(**options)
    return handler


def _log_table(profile: Any, *, options: Mapping[str, Any], logger: logging.Logger) -> None:
    logger.info("%s", profile.key_averages().table(**options))


def _folder(name: str, runner: Any) -> str:
    if Path(name).is_absolute():
        return name
    log_dir = getattr(runner, "log_dir", None)
    if log_dir is None:
        raise ConfigError(
            f"ProfilerHook: the run has no local folder for logs, so {name!r} is nowhere. Give an absolute dir_name."
        )
    return str(Path(log_dir) / name)
