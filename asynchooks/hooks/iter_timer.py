"""Measures where an iteration's time goes: waiting for data, and all of it; and from that, when the run ends.

Writes ``{mode}/data_time``, ``{mode}/time`` (seconds) and ``eta`` to the message hub, and leaves reading to others.
The clock is the host's: with a GPU, a step counts as done when its kernels are queued.
"""

from __future__ import annotations

import time
from typing import Any

from asynchooks.data import length_of
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["IterTimerHook"]


@HOOKS.register_module()
class IterTimerHook(Hook):
    """Times data loading and iterations, and estimates the seconds left (``eta``)."""

    priority = "NORMAL"
    effects = Effects()
    changes_state = False

    def __init__(self) -> None:
        self._mark: float | None = None
        self._train_total = 0.0
        self._train_count = 0
        self._other_total = 0.0

    def before_train(self, runner: Any) -> None:
        """Forget an earlier run's times; a resumed run's estimate counts only its own."""
        del runner
        self._train_total = 0.0
        self._train_count = 0
        self._mark = time.perf_counter()

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        del runner
        if mode != "train":
            self._other_total = 0.0
        self._mark = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note how long the loader took."""
        del batch_idx, data_batch
        runner.message_hub.update_scalar("train/data_time", self._elapsed())

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note how long the iteration took, and what is left."""
        del batch_idx, data_batch, outputs
        now = time.perf_counter()
        elapsed = 0.0 if self._mark is None else now - self._mark
        self._mark = now
        self._train_total += elapsed
        self._train_count += 1
        hub = runner.message_hub
        hub.update_scalar("train/time", elapsed)
        max_iters = runner.max_iters
        if max_iters is not None:
            left = max_iters - runner.iter - 1
            hub.update_info("eta", self._train_total / self._train_count * left)

    def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        del batch_idx, data_batch
        runner.message_hub.update_scalar(f"{mode}/data_time", self._elapsed())

    def _after_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "train"
    ) -> None:
        del data_batch, outputs
        elapsed = self._lap()
        self._other_total += elapsed
        runner.message_hub.update_scalar(f"{mode}/time", elapsed)
        length = length_of(getattr(runner, f"{mode}_dataloader", None))
        if length is not None:
            eta = self._other_total / (batch_idx + 1) * (length - batch_idx - 1)
            runner.message_hub.update_info("eta", eta)

    def _elapsed(self) -> float:
        now = time.perf_counter()
        if self._mark is None:
            self._mark = now
        return now - self._mark

    def _lap(self) -> float:
        now = time.perf_counter()
        elapsed = 0.0 if self._mark is None else now - self._mark
        self._mark = now
        return elapsed
