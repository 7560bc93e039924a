"""Logs how much memory the machine and this process use.

Measured in the background: an iteration does not wait for it, so the numbers are those of a moment later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.execution import Effects, Hook, background
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    import logging

    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["MemoryProfilerHook"]

_MB = 2**20


@HOOKS.register_module()
class MemoryProfilerHook(Hook):
    """Logs memory, swap and this process's own memory, every so many iterations of an epoch.

    Args:
        interval: iterations of an epoch from one line to the next; never for 0 and less.

    Raises:
        ImportError: psutil is not installed.
    """

    effects = Effects(writes={"logs.memory"})
    changes_state = False
    on_error: OnError = "warn"
    when_busy: WhenBusy = "skip"
    max_in_flight = 1

    def __init__(self, interval: int = 50) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int):
            raise TypeError(
                f"MemoryProfilerHook(interval={interval!r}): give an int, a number of iterations."
            )
        try:
            import psutil  # noqa: F401 - said now, not in the middle of a training
        except ImportError as error:
            raise ImportError(
                "MemoryProfilerHook needs psutil, which is not installed: pip install 'asynchooks[memory]'."
            ) from error
        self.interval = interval

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Log, where it is time."""
        return self._logging(runner, batch_idx)

    @background
    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Log, where it is time."""
        return self._logging(runner, batch_idx)

    @background
    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Log, where it is time."""
        return self._logging(runner, batch_idx)

    def _logging(self, runner: Any, batch_idx: int) -> BackgroundPart | None:
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return None
        logger: logging.Logger = runner.logger

        async def measure() -> None:
            await anyio.to_thread.run_sync(_log_memory, logger)

        return measure


def _log_memory(logger: logging.Logger) -> None:
    """Measure and log; in a worker thread, since handlers write to terminals and files."""
    logger.info("%s", _memory())


def _memory() -> str:
    """Return the line of MMDetection's hook."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return (
        f"Memory information available_memory: {round(memory.available / _MB)} MB, "
        f"used_memory: {round(memory.used / _MB)} MB, memory_utilization: {memory.percent} %, "
        f"available_swap_memory: {round((swap.total - swap.used) / _MB)} MB, "
        f"used_swap_memory: {round(swap.used / _MB)} MB, swap_memory_utilization: {swap.percent} %, "
        f"current_process_memory: {round(psutil.Process().memory_info().rss / _MB)} MB"
    )
