"""Models of which each rank has a part (FSDP2's): what of them is here, copies, and tensors that fit them.

Knows parts as torch's `DTensor`. Whole tensors become parts without a message: every rank takes its own out of them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["copied", "fitted", "hold_parts", "is_sharded", "part_like"]

M = TypeVar("M", bound=nn.Module)

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def is_sharded(model: nn.Module) -> bool:
    """Whether ranks have parts of a model's parameters, which it gathers in its forward."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def hold_parts(model: nn.Module) -> None:
    """Have a model hold its own parts again: after a forward without a backward the root has all. No collective."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def copied(model: M) -> M:
    """Return a deep copy of a model; of a sharded one, a plain module that holds copies of this rank's parts.

    Such a copy is a place for weights: its forward gathers nothing.
    """
    if not is_sharded(model):
        return copy.deepcopy(model)
    hold_parts(model)
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    memo: dict[int, Any] = {id(module): _plain_twin(module) for module in sharded}
    for module in sharded:
        memo[id(module)].__dict__.update(copy.deepcopy(_plain_entries(module), memo))
    twin: M = copy.deepcopy(model, memo)
    for each in twin.modules():
        for name in _HOOKS:
            hooks = each.__dict__.get(name) or {}
            for key in [key for key, hook in hooks.items() if _is_of_fsdp(hook)]:
                del hooks[key]
    return twin


def part_like(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as another one is spread over the ranks; a part, or beside a whole one, as it is."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    mesh, placements = like.device_mesh, like.placements
    whole = whole.to(like.to_local().device)
    if _SLICES_LOCALLY:
        return distribute_tensor(whole, mesh, placements, src_data_rank=None)
    return distribute_tensor(whole, mesh, placements)


def fitted(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state whose whole tensors are spread over the ranks as those of the same names are."""
    return {
        name: part_like(value, like[name])
        if isinstance(value, Tensor) and isinstance(like.get(name), Tensor)
        else value
        for name, value in state.items()
    }


# older torch sends the first rank's parts to the others
_SLICES_LOCALLY = "src_data_rank" in inspect.signature(distribute_tensor).parameters


def _plain_twin(module: nn.Module) -> nn.Module:
    """Return an empty module of the class below `FSDP<name>` and FSDPModule."""
    kind: Any = type(module).__mro__[2]
    twin: nn.Module = kind.__new__(kind)
    return twin


def _plain_entries(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds, without FSDP2's state and hooks, which cannot be copied."""
    entries = {key: value for key, value in module.__dict__.items() if key not in (STATE_KEY, REGISTRY_KEY)}
    for name in _HOOKS:
        hooks = entries.get(name)
        if hooks:
            entries[name] = type(hooks)((k, h) for k, h in hooks.items() if not _is_of_fsdp(h))
    return entries


def _is_of_fsdp(hook: Any) -> bool:
    function = getattr(hook, "hook", hook)  # torch wraps some
    return str(getattr(function, "__module__", "")).startswith("torch.distributed")
