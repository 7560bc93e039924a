"""The optimizer wrapper and the schedules of a run, built together: each needs to know of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from asynchooks.distributed import world_size
from asynchooks.errors import ConfigError
from asynchooks.optim import (
    build_optim_wrapper,
    build_param_schedulers,
    checked_auto_scale_lr,
    lr_scale,
    scale_lr,
)

if TYPE_CHECKING:
    from torch import nn

    from asynchooks.runner._parts import Parts

__all__ = ["build_optimization"]


def build_optimization(
    model: nn.Module,
    parts: Parts,
    optim_wrapper: Any,
    param_scheduler: Any,
    auto_scale_lr: Any,
    *,
    scope: str | None,
    seed: int,
) -> tuple[Any, Any]:
    """Return the optimizer wrapper, or None, and the schedulers: a list, or one by name for several optimizers.

    Raises:
        ConfigError: schedules without an optimizer, or something in the configurations is wrong.
    """
    base_batch_size = checked_auto_scale_lr(auto_scale_lr)
    if optim_wrapper is None:
        if param_scheduler is not None:
            raise ConfigError("param_scheduler came without optim_wrapper: there is nothing to schedule.")
        return None, []
    wrapper = build_optim_wrapper(model, optim_wrapper, scope=scope)
    if base_batch_size is not None:
        _check_unbuilt(param_scheduler)
        scale_lr(wrapper, lr_scale(base_batch_size, parts.batch_size(), world_size()))
    schedulers = build_param_schedulers(
        wrapper,
        param_scheduler,
        scope=scope,
        epoch_length=lambda: parts.epoch_length(seed=seed),
        max_steps=lambda by_epoch: parts.max_steps(by_epoch=by_epoch, seed=seed),
    )
    return wrapper, schedulers


def _check_unbuilt(param_scheduler: Any) -> None:
    if any(not isinstance(item, Mapping) for item in _items(param_scheduler)):
        raise ConfigError(
            "auto_scale_lr scales the learning rates that schedules start from, so param_scheduler must come as "
            "dicts: a built scheduler remembers those from before."
        )


def _items(param_scheduler: Any) -> Iterator[Any]:
    if isinstance(param_scheduler, Mapping) and "type" not in param_scheduler:
        param_scheduler = list(param_scheduler.values())
    if isinstance(param_scheduler, list | tuple):
        for item in param_scheduler:
            yield from _items(item)
    elif param_scheduler is not None:
        yield param_scheduler
