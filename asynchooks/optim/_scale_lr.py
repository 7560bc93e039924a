"""Scales learning rates with the batch size (Goyal et al., 2017, arXiv 1706.02677). Pure but for the groups."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean

__all__ = ["checked_auto_scale_lr", "lr_scale", "scale_lr"]

logger = logging.getLogger(__name__)

_OPTIONS = ("base_batch_size", "enable")


def checked_auto_scale_lr(auto_scale_lr: Any) -> int | None:
    """Return the batch size that the learning rates were chosen for; None where nothing is to be scaled.

    Args:
        auto_scale_lr: ``dict(base_batch_size=16, enable=False)``, or None.

    Raises:
        UnknownOptionError, ConfigError: it is something else.
    """
    if auto_scale_lr is None:
        return None
    if not isinstance(auto_scale_lr, Mapping):
        raise ConfigError(
            f"auto_scale_lr is a dict(base_batch_size=..., enable=True), not {auto_scale_lr!r}."
        )
    for name in auto_scale_lr:
        if name not in _OPTIONS:
            raise UnknownOptionError(
                f"auto_scale_lr takes no option {name!r}.{did_you_mean(str(name), _OPTIONS)} "
                f"It takes: {', '.join(_OPTIONS)}."
            )
    enable, base = auto_scale_lr.get("enable", False), auto_scale_lr.get("base_batch_size")
    if not isinstance(enable, bool):
        raise ConfigError(f"auto_scale_lr: enable is True or False, not {enable!r}.")
    if base is None and not enable:
        return None
    if isinstance(base, bool) or not isinstance(base, int) or base < 1:
        raise ConfigError(f"auto_scale_lr: base_batch_size is an int of at least 1, not {base!r}.")
    return base if enable else None


def lr_scale(base_batch_size: int, batch_size: int, world_size: int = 1) -> float:
    """Return the factor of learning rates that were chosen for ``base_batch_size`` samples per step.

    Args:
        base_batch_size: samples per step that they were chosen for, on all ranks together.
        batch_size: samples per step on one rank.
        world_size: ranks.
    """
    return float(batch_size * world_size) / float(base_batch_size)


def scale_lr(optim_wrapper: Any, factor: float) -> None:
    """Multiply the learning rates of a wrapper's, or several wrappers', groups. Before schedulers are built."""
    wrappers = optim_wrapper.values() if hasattr(optim_wrapper, "values") else (optim_wrapper,)
    for wrapper in wrappers:
        for group in wrapper.param_groups:
            group["lr"] = group["lr"] * factor
    logger.info("the learning rates are scaled by %g for the batch size", factor)
