"""Tells the model which epoch it is, for models whose training depends on it."""

from __future__ import annotations

from typing import Any

from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["SetEpochInfoHook"]


@HOOKS.register_module()
class SetEpochInfoHook(Hook):
    """Calls ``model.set_epoch(epoch)``, counted from 0, before each training epoch."""

    effects = Effects()

    def before_train(self, runner: Any) -> None:
        """Check that the model wants to know.

        Raises:
            ConfigError: it has no ``set_epoch``.
        """
        _setter(runner.model)

    def before_train_epoch(self, runner: Any) -> None:
        """Tell the model."""
        _setter(runner.model)(runner.epoch)


def _setter(model: Any) -> Any:
    is_wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = model.module if is_wrapped else model
    setter = getattr(inner, "set_epoch", None)
    if not callable(setter):
        raise ConfigError(f"SetEpochInfoHook: {type(inner).__name__} has no method set_epoch(epoch).")
    return setter
