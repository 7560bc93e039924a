"""MMCV 1.x's hook that makes the ranks agree on the model's buffers."""

from __future__ import annotations

from typing import Any

from asynchooks.distributed import all_reduce_mean, is_distributed
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.registry import MMCV_HOOKS

__all__ = ["SyncBuffersHook"]


@MMCV_HOOKS.register_module()
class SyncBuffersHook(RunnerHook):
    """Gives every rank the mean of all ranks' buffers after each epoch of training or validation.

    A collective, on the training thread of every rank; in a process without others it does nothing.

    Args:
        distributed: False switches the hook off.
    """

    priority = "NORMAL"
    effects = Effects()

    def __init__(self, distributed: bool = True) -> None:  # noqa: FBT001, FBT002 - MMCV's signature
        if not isinstance(distributed, bool):
            raise ConfigError(f"SyncBuffersHook: distributed is True or False, not {distributed!r}.")
        self.distributed = distributed

    def after_epoch(self, runner: Any) -> None:
        """Average the buffers."""
        if self.distributed and is_distributed():
            all_reduce_mean(runner.model.buffers())
