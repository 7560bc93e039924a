"""Builds optimizers from dicts: every torch class by its name, and MMEngine's names.

Every mistake is an error here, at construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.optim._wrapper import OptimWrapper
from asynchooks.registry import OPTIM_WRAPPERS, OPTIMIZERS

__all__ = ["build_optim_wrapper"]


def build_optim_wrapper(
    model: nn.Module,
    cfg: OptimWrapper | torch.optim.Optimizer | Mapping[str, Any],
    *,
    scope: str | None = None,
) -> OptimWrapper:
    """Return the optimizer wrapper for a model.

    Args:
        model: its parameters are optimized.
        cfg: a built `OptimWrapper` or torch optimizer, or a dict such as
            ``dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=35))``, whose ``optimizer`` may
            be built too. ``type`` is "OptimWrapper" where it is left out.
        scope: scope that is asked first for a bare name.
    """
    if isinstance(cfg, torch.optim.Optimizer):
        return OptimWrapper(cfg)
    if not isinstance(cfg, Mapping):
        if callable(getattr(cfg, "update_params", None)):
            return cfg
        raise ConfigError(
            f"optim_wrapper is a dict(optimizer=dict(type=...)), an optimizer or an OptimWrapper, not {cfg!r}."
        )
    if "optimizer" not in cfg:
        raise ConfigError(
            f"optim_wrapper needs the key 'optimizer', such as "
            f"optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)); it has {list(cfg)}."
        )
    options = {"type": "OptimWrapper", **cfg}
    OPTIM_WRAPPERS.check(options, scope=scope)
    optimizer = options["optimizer"]
    if isinstance(optimizer, Mapping):
        optimizer = OPTIMIZERS.build(optimizer, scope=scope, params=model.parameters())
    wrapper: OptimWrapper = OPTIM_WRAPPERS.build({**options, "optimizer": optimizer}, scope=scope)
    return wrapper


def _register_torch() -> None:
    for name, value in vars(torch.optim).items():
        is_public = not name.startswith("_") and value is not torch.optim.Optimizer
        if is_public and isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
            OPTIMIZERS.register_module(name, module=value)


_register_torch()
