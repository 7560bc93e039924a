"""Builds optimizers from dicts: every torch class by its name, and MMEngine's and MMCV's names.

Every mistake is an error here, at construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.optim._wrapper import OptimWrapper
from asynchooks.optim._wrapper_dict import OptimWrapperDict
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, option_names

__all__ = ["build_optim_wrapper", "build_optimizer"]


def build_optim_wrapper(
    model: nn.Module,
    cfg: OptimWrapper | OptimWrapperDict | torch.optim.Optimizer | Mapping[str, Any],
    *,
    scope: str | None = None,
) -> Any:
    """Return the optimizer wrapper for a model, or several in an `OptimWrapperDict`.

    Args:
        model: its parameters are optimized.
        cfg: a built wrapper or torch optimizer; or a dict such as
            ``dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=35))``, whose ``optimizer`` may
            be built too. ``type`` is "OptimWrapper" where it is left out. ``paramwise_cfg`` and ``constructor``
            say which parameter gets which learning rate, see `DefaultOptimWrapperConstructor`; a constructor of
            one's own gets everything else as ``optim_wrapper_cfg``. Or a dict of names to built wrappers.
        scope: scope that is asked first for a bare name.

    Raises:
        UnknownNameError, UnknownOptionError, ConfigError: something in it is wrong.
    """
    if isinstance(cfg, torch.optim.Optimizer):
        return OptimWrapper(cfg)
    if not isinstance(cfg, Mapping):
        if callable(getattr(cfg, "update_params", None)):
            return cfg
        raise ConfigError(
            f"optim_wrapper is a dict(optimizer=dict(type=...)), an optimizer or an OptimWrapper, not {cfg!r}."
        )
    if "constructor" in cfg:
        return _construct(model, cfg, scope)
    if "optimizer" not in cfg:
        return _named(cfg)
    options = {"type": "OptimWrapper", **cfg}
    if not isinstance(options["optimizer"], Mapping):
        if options.pop("paramwise_cfg", None):
            raise ConfigError(
                "paramwise_cfg came with a built optimizer, which has its parameter groups already; give the "
                "optimizer as a dict."
            )
        return OPTIM_WRAPPERS.build(options, scope=scope)
    OPTIM_WRAPPERS.check({k: v for k, v in options.items() if k != "paramwise_cfg"}, scope=scope)
    return _construct(model, {"constructor": "DefaultOptimWrapperConstructor", **options}, scope)


def build_optimizer(model: nn.Module, cfg: Mapping[str, Any], *, scope: str | None = None) -> Any:
    """Return the optimizer for a model, as MMCV 1.x's function of this name.

    Args:
        model: its parameters are optimized.
        cfg: ``dict(type="SGD", lr=0.1, paramwise_cfg=..., constructor=...)``, which is not changed;
            "DefaultOptimizerConstructor" is the constructor where it is left out.
        scope: scope that is asked first for a bare name.
    """
    if not isinstance(cfg, Mapping):
        raise ConfigError(
            f"An optimizer is configured by a dict such as dict(type='SGD', lr=0.1), not {cfg!r}."
        )
    options = dict(cfg)
    kind = {"type": options.pop("constructor", "DefaultOptimizerConstructor")}
    paramwise_cfg = options.pop("paramwise_cfg", None)
    if "optimizer_cfg" not in _arguments(kind, scope):
        raise ConfigError(
            f"constructor={kind['type']!r} builds an optimizer wrapper; build_optim_wrapper takes it, and "
            f"DefaultOptimizerConstructor builds an optimizer."
        )
    return _constructor(kind, scope, optimizer_cfg=options, paramwise_cfg=paramwise_cfg)(model)


def _construct(model: nn.Module, cfg: Mapping[str, Any], scope: str | None) -> Any:
    """Let a constructor build the wrapper; MMCV's build an optimizer, which is wrapped."""
    options = dict(cfg)
    kind = {"type": options.pop("constructor")}
    paramwise_cfg = options.pop("paramwise_cfg", None)
    names = _arguments(kind, scope)
    if "optimizer_cfg" not in names or "optim_wrapper_cfg" in names:
        return _constructor(kind, scope, optim_wrapper_cfg=options, paramwise_cfg=paramwise_cfg)(model)
    if "optimizer" not in options:
        raise ConfigError(f"optim_wrapper needs the key 'optimizer'; it has {list(cfg)}.")
    optimizer_cfg = options.pop("optimizer")
    options.setdefault("type", "OptimWrapper")
    OPTIM_WRAPPERS.check(options, scope=scope, provided=("optimizer",))
    optimizer = _constructor(kind, scope, optimizer_cfg=optimizer_cfg, paramwise_cfg=paramwise_cfg)(model)
    return OPTIM_WRAPPERS.build(options, scope=scope, optimizer=optimizer)


def _arguments(kind: Mapping[str, Any], scope: str | None) -> list[str]:
    return option_names(OPTIM_WRAPPER_CONSTRUCTORS.resolve(kind, scope=scope)[0])[0]


def _constructor(kind: Mapping[str, Any], scope: str | None, **arguments: Any) -> Any:
    own = {"scope": scope} if "scope" in _arguments(kind, scope) else {}
    return OPTIM_WRAPPER_CONSTRUCTORS.build({**kind, **own}, scope=scope, **arguments)


def _named(cfg: Mapping[str, Any]) -> OptimWrapperDict:
    built = {name: each for name, each in cfg.items() if callable(getattr(each, "update_params", None))}
    if not cfg or len(built) < len(cfg):
        hint = " Several optimizers come as built wrappers, or from a constructor=..." if built else ""
        raise ConfigError(
            f"optim_wrapper needs the key 'optimizer', such as "
            f"optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)); it has {list(cfg)}.{hint}"
        )
    return OptimWrapperDict(**built)


def _register_torch() -> None:
    for name, value in vars(torch.optim).items():
        is_public = not name.startswith("_") and value is not torch.optim.Optimizer
        if is_public and isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
            OPTIMIZERS.register_module(name, module=value)


_register_torch()
