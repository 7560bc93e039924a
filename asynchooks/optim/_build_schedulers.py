"""Builds schedules from dicts: every torch class by its name, and MMEngine's names.

Decides how MMEngine's argument names map onto torch's. Every mistake is an error here, at construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from asynchooks.errors import ConfigError
from asynchooks.optim._schedulers import ParamScheduler
from asynchooks.registry import PARAM_SCHEDULERS, check_options

__all__ = ["build_param_schedulers"]

_RANGE = ("by_epoch", "begin", "end")
_COUNTED = (lr_scheduler.LinearLR, lr_scheduler.ConstantLR, lr_scheduler.PolynomialLR)
_COMPOSED = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)


def build_param_schedulers(
    optimizer: torch.optim.Optimizer,
    cfg: Any,
    *,
    scope: str | None = None,
) -> list[Any]:
    """Return the schedulers that one dict or object, or a sequence of them, describes.

    A built torch scheduler steps by epoch. A class of one's own is called with the optimizer and the options,
    and needs ``step``, ``state_dict``, ``load_state_dict`` and ``by_epoch``.
    """
    if cfg is None:
        return []
    items = cfg if isinstance(cfg, list | tuple) else [cfg]
    return [_build_scheduler(optimizer, item, scope) for item in items]


def _build_scheduler(optimizer: torch.optim.Optimizer, cfg: Any, scope: str | None) -> Any:
    if isinstance(cfg, LRScheduler):
        return _adopt(optimizer, cfg)
    if not isinstance(cfg, Mapping):
        if callable(getattr(cfg, "step", None)):
            return cfg
        raise ConfigError(f"param_scheduler takes dicts such as dict(type='StepLR', ...), not {cfg!r}.")
    kind, options = PARAM_SCHEDULERS.resolve(cfg, scope=scope)
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        return PARAM_SCHEDULERS.build(cfg, scope=scope, optimizer=optimizer)
    begin, end = options.pop("begin", 0), options.pop("end", math.inf)
    by_epoch = options.pop("by_epoch", True)
    monitor = None
    if issubclass(kind, ReduceLROnPlateau):
        monitor = options.pop("monitor", "loss")
        _rename(options, rule="mode", threshold_rule="threshold_mode", min_value="min_lr")
        if "mode" in options:
            options["mode"] = {"less": "min", "greater": "max"}.get(options["mode"], options["mode"])
    _fill_length(kind, options, begin, end)
    check_options(kind, {"optimizer": None, **options}, also=_RANGE)
    create = partial(_create, kind, options, scope)
    return ParamScheduler(optimizer, create, by_epoch=by_epoch, begin=begin, end=end, monitor=monitor)


def _create(
    kind: type[LRScheduler], options: Mapping[str, Any], scope: str | None, optimizer: torch.optim.Optimizer
) -> LRScheduler:
    arguments = dict(options)
    if issubclass(kind, _COMPOSED):
        arguments["schedulers"] = [_create_part(optimizer, part, scope) for part in arguments["schedulers"]]
    return kind(optimizer=optimizer, **arguments)


def _create_part(optimizer: torch.optim.Optimizer, part: Any, scope: str | None) -> Any:
    if not isinstance(part, Mapping):
        return part
    kind, options = PARAM_SCHEDULERS.resolve(part, scope=scope)
    check_options(kind, {"optimizer": None, **options})
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        raise ConfigError(f"{part!r} names no torch scheduler, of which a composed one is made.")
    return _create(kind, options, scope, optimizer)


def _adopt(optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> ParamScheduler:
    if scheduler.optimizer is not optimizer:
        raise ConfigError(
            f"This {type(scheduler).__name__} schedules another optimizer than the run's. Pass the optimizer "
            f"that it was built with as optim_wrapper=..., or configure the scheduler by a dict."
        )
    monitor = "loss" if isinstance(scheduler, ReduceLROnPlateau) else None
    return ParamScheduler(optimizer, lambda _: scheduler, monitor=monitor)


def _fill_length(kind: type[LRScheduler], options: dict[str, Any], begin: int, end: float) -> None:
    """Take the length from the range where torch's own argument is left out, as MMEngine does."""
    if not isinstance(end, int):
        return
    if issubclass(kind, _COUNTED):
        options.setdefault("total_iters", end - begin - 1)
    elif issubclass(kind, lr_scheduler.CosineAnnealingLR):
        options.setdefault("T_max", end - begin)


def _rename(options: dict[str, Any], **names: str) -> None:
    for mmengine, torch_name in names.items():
        if mmengine in options:
            options[torch_name] = options.pop(mmengine)


def _register_torch() -> None:
    for name, value in vars(lr_scheduler).items():
        is_public = not name.startswith("_") and value is not LRScheduler
        if is_public and isinstance(value, type) and issubclass(value, LRScheduler):
            PARAM_SCHEDULERS.register_module(name, module=value)
    PARAM_SCHEDULERS.register_module("PolyLR", module=lr_scheduler.PolynomialLR)
    PARAM_SCHEDULERS.register_module("ReduceOnPlateauLR", module=ReduceLROnPlateau)


_register_torch()
