"""Makes the ranks of a training agree on the model's buffers, such as BatchNorm's running statistics."""

from __future__ import annotations

from typing import Any

from asynchooks.distributed import all_reduce_mean, is_distributed
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["SyncBuffersHook"]


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Gives every rank the mean of all ranks' buffers: after each training epoch, else before the next validation.

    A collective, on the training thread of every rank; in a process without others it does nothing. Whether there
    are others is asked each time, not when the hook is made as MMEngine's does.
    """

    priority = "NORMAL"
    effects = Effects()

    def __init__(self) -> None:
        self._is_synced = False

    def after_train_epoch(self, runner: Any) -> None:
        """Average the buffers."""
        if is_distributed():
            all_reduce_mean(runner.model.buffers())
            self._is_synced = True

    def before_val_epoch(self, runner: Any) -> None:
        """Average the buffers, unless the training's epoch has just ended: in a loop that counts iterations."""
        if is_distributed():
            if not self._is_synced:
                all_reduce_mean(runner.model.buffers())
            self._is_synced = False
