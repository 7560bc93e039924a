"""MMCV 1.x's timer: puts ``data_time`` and ``time`` of each iteration, in seconds, into the log buffer."""

from __future__ import annotations

import time
from typing import Any

from asynchooks.execution import Effects, RunnerHook
from asynchooks.registry import MMCV_HOOKS

__all__ = ["IterTimerHook"]


@MMCV_HOOKS.register_module()
class IterTimerHook(RunnerHook):
    """Times data loading and iterations, in training and validation, for ``runner.log_buffer``.

    The clock is the host's: with a GPU, a step counts as done when its kernels are queued.
    """

    priority = "LOW"
    effects = Effects()
    changes_state = False

    def __init__(self) -> None:
        self.t: float | None = None

    def before_epoch(self, runner: Any) -> None:
        """Start the clock."""
        del runner
        self.t = time.perf_counter()

    def before_iter(self, runner: Any) -> None:
        """Note how long the loader took."""
        runner.log_buffer.update({"data_time": self._elapsed()})

    def after_iter(self, runner: Any) -> None:
        """Note how long the iteration took, with its data."""
        runner.log_buffer.update({"time": self._elapsed()})
        self.t = time.perf_counter()

    def _elapsed(self) -> float:
        now = time.perf_counter()
        if self.t is None:
            self.t = now
        return now - self.t
