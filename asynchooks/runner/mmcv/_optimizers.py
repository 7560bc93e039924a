"""The optimizers of a run in MMCV's manner: one, several by name, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asynchooks.optim import OptimWrapper, OptimWrapperDict, build_optimizer

__all__ = ["checked_optimizer", "wrapped"]

Optimizer = torch.optim.Optimizer


def wrapped(optimizer: Any) -> OptimWrapper | OptimWrapperDict | None:
    """Return the optimizers as checkpoints and general hooks take them."""
    if isinstance(optimizer, Mapping):
        return OptimWrapperDict(**{name: OptimWrapper(each) for name, each in optimizer.items()})
    return None if optimizer is None else OptimWrapper(optimizer)


def checked_optimizer(optimizer: Any, model: nn.Module) -> Optimizer | dict[str, Optimizer] | None:
    """Return an optimizer, several by name, or None; build it from a config dict.

    Raises:
        TypeError: it is none of these.
        ConfigError: the config dict is wrong.
    """
    if optimizer is None or isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, Mapping):
        raise TypeError(
            f"optimizer is a torch.optim.Optimizer, a dict of them, or a dict(type='SGD', lr=...), not {optimizer!r}."
        )
    if "type" in optimizer:
        return _built(optimizer, model)
    wrong = {name: each for name, each in optimizer.items() if not isinstance(each, Optimizer | Mapping)}
    if wrong or not optimizer:
        name, each = next(iter(wrong.items()), ("", None))
        raise TypeError(
            f"optimizer: a dict has torch.optim.Optimizers by name, or 'type' as the first of an optimizer's "
            f"options; optimizer[{name!r}] is {each!r}."
        )
    return {
        name: _built(each, model) if isinstance(each, Mapping) else each for name, each in optimizer.items()
    }


def _built(cfg: Mapping[str, Any], model: nn.Module) -> Optimizer:
    built: Optimizer = build_optimizer(model, cfg)
    return built
