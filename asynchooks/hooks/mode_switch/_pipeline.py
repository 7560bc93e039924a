"""Another pipeline of transforms from some epoch on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asynchooks.data import Compose
from asynchooks.errors import ConfigError
from asynchooks.hooks.mode_switch._switching import Switching
from asynchooks.registry import HOOKS

__all__ = ["PipelineSwitchHook"]


@HOOKS.register_module()
class PipelineSwitchHook(Switching):
    """Replaces ``pipeline`` of the training's data set.

    Args:
        switch_epoch: the first epoch with the new pipeline, counted from 0.
        switch_pipeline: the new transforms: dicts for the registry TRANSFORMS, or callables.

    Raises:
        ConfigError, UnknownNameError, UnknownOptionError: a wrong value; the pipeline is built at construction.
    """

    def __init__(self, switch_epoch: int, switch_pipeline: Sequence[Any]) -> None:
        if isinstance(switch_epoch, bool) or not isinstance(switch_epoch, int) or switch_epoch < 0:
            raise ConfigError(
                f"PipelineSwitchHook(switch_epoch={switch_epoch!r}): give an int >= 0, an epoch."
            )
        self.switch_epoch = switch_epoch
        self.switch_pipeline = switch_pipeline
        self._pipeline = Compose(switch_pipeline)

    def _is_time(self, runner: Any) -> bool:
        return bool(runner.epoch >= self.switch_epoch)

    def _check(self, runner: Any) -> None:
        self._dataset_with(runner, "pipeline")

    def _switch(self, runner: Any) -> None:
        self._dataset_with(runner, "pipeline").pipeline = self._pipeline
        runner.logger.info("PipelineSwitchHook: the data go through %r from now on.", self._pipeline)
