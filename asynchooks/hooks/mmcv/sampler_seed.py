"""MMCV 1.x's hook that gives the sampler the epoch, so that every epoch is shuffled anew and every rank alike."""

from __future__ import annotations

from typing import Any

from asynchooks.execution import Effects, RunnerHook
from asynchooks.registry import MMCV_HOOKS

__all__ = ["DistSamplerSeedHook"]


@MMCV_HOOKS.register_module()
class DistSamplerSeedHook(RunnerHook):
    """Calls ``set_epoch(runner.epoch)`` on the loader's sampler, or on its batch sampler's, before each epoch.

    A loader whose samplers take no epoch is left alone.
    """

    priority = "NORMAL"
    effects = Effects()
    changes_state = False

    def before_epoch(self, runner: Any) -> None:
        """Set the epoch. Called on the training thread, before the loader's iterator is made."""
        loader = getattr(runner, "data_loader", None)
        batch_sampler = getattr(loader, "batch_sampler", None)
        samplers: list[Any] = [getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None)]
        for sampler in samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(runner.epoch)
                return
