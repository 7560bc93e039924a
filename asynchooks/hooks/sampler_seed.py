"""Gives the data loader's sampler the epoch, so that every epoch is shuffled anew and every rank alike.

Knows nothing of data sets; a loader whose samplers take no epoch is left alone.
"""

from __future__ import annotations

from typing import Any

from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["DistSamplerSeedHook"]


@HOOKS.register_module()
class DistSamplerSeedHook(Hook):
    """Calls ``set_epoch(runner.epoch)`` on the sampler, or on the batch sampler's sampler, before each epoch."""

    priority = "NORMAL"
    effects = Effects()
    changes_state = False

    def before_train_epoch(self, runner: Any) -> None:
        """Set the epoch. Called on the training thread, before the loader's iterator is made."""
        loader = getattr(runner, "train_dataloader", None)
        batch_sampler = getattr(loader, "batch_sampler", None)
        samplers: list[Any] = [getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None)]
        for sampler in samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(runner.epoch)
                return
