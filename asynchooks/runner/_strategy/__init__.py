"""How the ranks of a run share its model: replicas, or parts.

A strategy has ``wrap(model)``, which every rank calls before the optimizer is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from asynchooks.distributed import is_distributed
from asynchooks.errors import ConfigError
from asynchooks.registry import STRATEGIES
from asynchooks.runner._strategy._ddp import DDP, adopt
from asynchooks.runner._strategy._fsdp import FSDP2
from asynchooks.runner._strategy._reduction import reductions_of

__all__ = ["DDP", "FSDP2", "check_strategy", "is_wrapped", "parallel", "reductions_of", "strategy_of"]


def check_strategy(given: Any, *, scope: str | None = None) -> None:
    """Raise what `parallel` would raise about names and options."""
    if given is None or hasattr(given, "wrap"):
        return
    if not isinstance(given, Mapping):
        raise ConfigError(f"strategy is dict(type='DDP') or dict(type='FSDP2', ...), not {given!r}.")
    STRATEGIES.build({"type": "DDP", **given}, scope=scope)


def parallel(model: nn.Module, given: Any, *, scope: str | None = None) -> nn.Module:
    """Return a model that takes part with the other ranks. A collective where there are any.

    Args:
        model: the model, on its device; one that the user has wrapped is kept.
        given: the strategy or its dict; None is DDP on several ranks.
        scope: scope that is asked first for a bare name.

    Raises:
        ConfigError: a strategy for a model that is wrapped already.
    """
    wrapped = is_wrapped(model)
    if wrapped and given is not None:
        raise ConfigError(
            f"The model is wrapped already ({type(model).__name__}), so there is nothing for strategy={given!r} to "
            f"do; leave strategy out, or give the model as it is."
        )
    if isinstance(model, DistributedDataParallel):
        adopt(model)
    if wrapped or not is_distributed():
        return model
    if not hasattr(given, "wrap"):
        given = STRATEGIES.build({"type": "DDP", **(given or {})}, scope=scope)
    wrap: nn.Module = given.wrap(model)
    return wrap


def is_wrapped(model: nn.Module) -> bool:
    """Whether somebody has made a model parallel: DDP, ``fully_shard`` or ``replicate``, of it or inside of it."""
    kinds = (DistributedDataParallel, nn.DataParallel, FSDPModule)
    return any(isinstance(m, kinds) or hasattr(m, "set_requires_gradient_sync") for m in model.modules())


def strategy_of(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the strategy that MMEngine's entries of a configuration mean; None where there are none."""
    wrapper = cfg.get("model_wrapper_cfg")
    options = {name: cfg[name] for name in ("find_unused_parameters", "sync_bn") if name in cfg}
    if wrapper is None and not options:
        return None
    kind = (wrapper or {}).get("type", "DDP")
    return {"type": kind, **options, **{k: v for k, v in (wrapper or {}).items() if k != "type"}}
