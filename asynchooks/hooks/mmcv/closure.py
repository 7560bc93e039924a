"""A function as a hook's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynchooks.errors import ConfigError, did_you_mean
from asynchooks.execution import POINTS, RunnerHook
from asynchooks.registry import MMCV_HOOKS

__all__ = ["ClosureHook"]

_GENERIC = ("before_epoch", "after_epoch", "before_iter", "after_iter")


@MMCV_HOOKS.register_module()
class ClosureHook(RunnerHook):
    """Calls a function at one hook point. What it touches is unknown, so it runs where inline hooks would.

    Args:
        fn_name: the point, or one of ``before_epoch``, ``after_epoch``, ``before_iter``, ``after_iter``.
        fn: function of the runner (or of the runner and the point's arguments); it may be ``async``.

    Raises:
        ConfigError: there is no such point.
        TypeError: ``fn`` cannot be called.
    """

    def __init__(self, fn_name: str, fn: Callable[..., Any]) -> None:
        names = (*POINTS, *_GENERIC)
        if fn_name not in names:
            raise ConfigError(
                f"ClosureHook(fn_name={fn_name!r}): no hook point is called so.{did_you_mean(str(fn_name), names)} "
                f"There are {', '.join(names)}."
            )
        if not callable(fn):
            raise TypeError(f"ClosureHook(fn={fn!r}): give a function of the runner.")
        setattr(self, fn_name, fn)
