"""Builds schedules from dicts: MMEngine's classes by their names and arguments, and every torch class by its name.

Decides which class a name means, what is filled in from the length of the run, and what is converted from epochs to
iterations. Every mistake is an error here, at construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean
from asynchooks.optim._schedulers import GroupScheduler, Pace, ParamScheduler
from asynchooks.registry import PARAM_SCHEDULERS, check_options, option_names

__all__ = ["build_param_schedulers"]

_CONVERT = "convert_to_iter_based"
_RANGE = ("by_epoch", "begin", "end", _CONVERT)
_COUNTED = (lr_scheduler.LinearLR, lr_scheduler.ConstantLR, lr_scheduler.PolynomialLR)
_COMPOSED = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)
# Torch's classes whose names MMEngine's have.
_NAMESAKES: dict[str, type[LRScheduler]] = {}


@dataclass(frozen=True, slots=True)
class _Run:
    """What a schedule may need to know of the run that it belongs to; asked only then."""

    scope: str | None
    epoch_length: Callable[[], int] | None
    max_steps: Callable[[bool], int | None] | None


def build_param_schedulers(
    optimizer: Any,
    cfg: Any,
    *,
    scope: str | None = None,
    epoch_length: Callable[[], int] | None = None,
    max_steps: Callable[[bool], int | None] | None = None,
) -> Any:
    """Return the schedulers that one dict or object, or a sequence of them, describes.

    A built torch scheduler steps by epoch. A class of one's own is called with the optimizer and the options,
    and needs ``step``, ``state_dict``, ``load_state_dict`` and ``by_epoch``. A name that MMEngine's and torch's
    classes share means MMEngine's, unless an option is one that torch's alone takes (``total_iters``, ``max_lr``).

    Args:
        optimizer: a torch optimizer or its wrapper; or several wrappers by name, an `OptimWrapperDict`.
        cfg: schedulers for it. For several optimizers, a dict of their names to such; or one for all of them.
        scope: scope that is asked first for a bare name.
        epoch_length: returns the iterations per epoch, for ``convert_to_iter_based=True``.
        max_steps: returns the epochs (True) or iterations (False) of the whole run, None where unknown: the
            ``end`` of schedules whose values need one and that have none.

    Returns:
        A list; for several optimizers, a dict of lists.
    """
    run = _Run(scope, epoch_length, max_steps)
    if _is_several(optimizer):
        return {name: _build_list(each, part, run) for name, each, part in _shared_out(optimizer, cfg)}
    return _build_list(optimizer, cfg, run)


def _build_list(optimizer: Any, cfg: Any, run: _Run) -> list[Any]:
    if cfg is None:
        return []
    items = cfg if isinstance(cfg, list | tuple) else [cfg]
    return [_build_scheduler(optimizer, item, run) for item in items]


def _is_several(optimizer: Any) -> bool:
    return isinstance(optimizer, Mapping) or callable(getattr(optimizer, "items", None))


def _shared_out(optimizers: Any, cfg: Any) -> list[tuple[str, Any, Any]]:
    """Return (name, optimizer, its schedulers' configuration) for several optimizers."""
    named = dict(optimizers.items())
    if not isinstance(cfg, Mapping) or "type" in cfg:
        return [(name, each, cfg) for name, each in named.items()]
    unknown = next((name for name in cfg if name not in named), None)
    if unknown is not None:
        raise UnknownNameError(
            f"param_scheduler: no optimizer is called {unknown!r}.{did_you_mean(str(unknown), named)} There are "
            f"{', '.join(named)}."
        )
    return [(name, each, cfg.get(name)) for name, each in named.items()]


def _build_scheduler(optimizer: Any, cfg: Any, run: _Run) -> Any:
    if isinstance(cfg, LRScheduler):
        return _adopt(_unwrapped(optimizer), cfg)
    if not isinstance(cfg, Mapping):
        if callable(getattr(cfg, "step", None)):
            return cfg
        raise ConfigError(f"param_scheduler takes dicts such as dict(type='StepLR', ...), not {cfg!r}.")
    kind, options = PARAM_SCHEDULERS.resolve(cfg, scope=run.scope)
    kind = _torchs_own(kind, options)
    converts = options.pop(_CONVERT, False)
    if isinstance(kind, type) and issubclass(kind, LRScheduler):
        if converts:
            raise ConfigError(f"{_CONVERT} goes with MMEngine's schedulers, and {cfg!r} is torch's.")
        return _build_torchs(_unwrapped(optimizer), kind, options, run)
    provided = {"optimizer": _unwrapped(optimizer)}
    epochs: int | None = None
    if isinstance(kind, type) and issubclass(kind, GroupScheduler):
        check_options(kind, {"optimizer": None, **options}, also=_RANGE)
        epochs = _fill_end(kind, options, run)
        if hasattr(optimizer, "param_groups"):  # a wrapper may have groups beside its optimizer's
            provided["optimizer"] = optimizer
    entries = {"type": _by_iteration(kind) if converts else kind, **provided, **options}

    def build(**lengths: int) -> Any:
        return PARAM_SCHEDULERS.build({**entries, **lengths}, scope=run.scope)

    if converts:
        return _paced(run, lambda length: build(epoch_length=length))
    return build() if epochs is None else _paced(run, lambda length: build(end=epochs * length))


def _paced(run: _Run, build: Callable[[int], Any]) -> Any:
    """Return a schedule by iteration for epochs as long as the run's, which could go on in others."""
    length = _epoch_length(run)
    scheduler = build(length)
    if isinstance(scheduler, GroupScheduler):
        scheduler.pace = Pace(length, build)
    return scheduler


def _torchs_own(kind: Any, options: Mapping[str, Any]) -> Any:
    """Return torch's class in place of its namesake of MMEngine where an option says that it is meant."""
    namesake = _NAMESAKES.get(getattr(kind, "__name__", ""))
    if namesake is None or PARAM_SCHEDULERS.get(kind.__name__) is not kind:
        return kind
    ours, torchs = option_names(kind)[0], option_names(namesake)[0]
    return namesake if any(name in torchs and name not in ours for name in options) else kind


def _fill_end(kind: type[GroupScheduler], options: dict[str, Any], run: _Run) -> int | None:
    """Let a schedule whose values depend on its length end with the run, as MMEngine does.

    Returns:
        How many epochs that are, where the schedule counts iterations and the run counts epochs; else None.
    """
    has_length = kind.length_name is not None and options.get(kind.length_name) is not None
    if "end" in options or has_length or not kind.needs_length or run.max_steps is None:
        return None
    by_epoch = bool(options.get("by_epoch", True))
    end = run.max_steps(by_epoch)
    if end is None:
        return None
    options["end"] = end
    return None if by_epoch or run.epoch_length is None else run.max_steps(True)


def _by_iteration(kind: Any) -> Callable[..., Any]:
    convert = getattr(kind, "build_iter_from_epoch", None)
    if convert is None:
        raise ConfigError(f"{_CONVERT} needs a scheduler with build_iter_from_epoch, which {kind!r} has not.")
    return cast("Callable[..., Any]", convert)


def _epoch_length(run: _Run) -> int:
    if run.epoch_length is None:
        raise ConfigError(f"{_CONVERT}=True needs the number of iterations per epoch: epoch_length=...")
    return run.epoch_length()


def _build_torchs(
    optimizer: torch.optim.Optimizer, kind: type[LRScheduler], options: dict[str, Any], run: _Run
) -> ParamScheduler:
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
    create = partial(_create, kind, options, run.scope)
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
    kind = _NAMESAKES.get(getattr(kind, "__name__", ""), kind)
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


def _unwrapped(optimizer: Any) -> Any:
    return optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer


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
            if name in PARAM_SCHEDULERS:
                _NAMESAKES[name] = value
            else:
                PARAM_SCHEDULERS.register_module(name, module=value)
    _NAMESAKES["PolyLR"] = lr_scheduler.PolynomialLR
    _NAMESAKES["ReduceOnPlateauLR"] = ReduceLROnPlateau


_register_torch()
