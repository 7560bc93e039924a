"""MMCV 1.x's hook that gives cached device memory back."""

from __future__ import annotations

from typing import Any

import torch

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.registry import MMCV_HOOKS

__all__ = ["EmptyCacheHook"]


@MMCV_HOOKS.register_module()
class EmptyCacheHook(RunnerHook):
    """Empties the cache of CUDA's allocator, in training and validation; waits for the device.

    Args:
        before_epoch: whether before each epoch.
        after_epoch: whether after each epoch.
        after_iter: whether after each iteration.
    """

    priority = "NORMAL"
    effects = Effects()
    changes_state = False

    def __init__(
        self,
        before_epoch: bool = False,  # noqa: FBT001, FBT002 - MMCV's signature
        after_epoch: bool = True,  # noqa: FBT001, FBT002
        after_iter: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        points = {"before_epoch": before_epoch, "after_epoch": after_epoch, "after_iter": after_iter}
        for name, value in points.items():
            if not isinstance(value, bool):
                raise ConfigError(f"EmptyCacheHook: {name} is True or False, not {value!r}.")
        self._points = frozenset(name for name, value in points.items() if value)

    def before_epoch(self, runner: Any) -> None:
        """Empty the cache, if asked to."""
        self._empty("before_epoch")

    def after_epoch(self, runner: Any) -> None:
        """Empty the cache, if asked to."""
        self._empty("after_epoch")

    def after_iter(self, runner: Any) -> None:
        """Empty the cache, if asked to."""
        self._empty("after_iter")

    def _empty(self, point: str) -> None:
        if point in self._points and torch.cuda.is_available():
            torch.cuda.empty_cache()
