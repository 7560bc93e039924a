"""Where the entries of a sharded checkpoint go when a run takes it up: which of them this rank needs, and into what.

A reader fills the tensors in place: live weights and states, or new ones spread over the ranks as the parameters
that they belong to are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from asynchooks.distributed import rank, world_size
from asynchooks.optim import hold_parts, named_state, unwrapped

if TYPE_CHECKING:
    from asynchooks.checkpoint import ShardEntry
    from asynchooks.runner._context import RunContext

__all__ = ["Kind", "parts_to_read", "places_in"]

Kind = tuple[Sequence[int], torch.dtype]

_STATES = "resume.ranks."


def parts_to_read(run: RunContext, entries: Mapping[str, ShardEntry]) -> tuple[dict[str, Any], list[str]]:
    """Return what this rank reads of a sharded checkpoint: a state to fill in place, and its keys.

    Args:
        run: which takes it up.
        entries: what stands in the checkpoint, by flat name.
    """
    kinds = {
        name: None if each.shape is None or each.dtype is None else (each.shape, each.dtype)
        for name, each in entries.items()
    }
    saved_by = len({each.path[2] for name, each in entries.items() if name.startswith(_STATES)})
    state: dict[str, Any] = {}
    keys: dict[str, None] = {}
    for name, place in places_in(run, kinds, saved_by=max(saved_by, 1)).items():
        path = entries[name].path
        node: dict[Any, Any] = state
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = place
        keys[name if path[0] == "resume" else str(path[0])] = None
    return state, [*keys]


def places_in(run: RunContext, entries: Mapping[str, Kind | None], *, saved_by: int) -> dict[str, Any]:
    """Return the entries that this rank reads, each with the tensor to fill; None for what is no tensor.

    Args:
        run: the run.
        entries: shape and dtype of each tensor in the checkpoint by its flat name, such as
            ``optimizer.state.head.weight.exp_avg``; None for other objects.
        saved_by: how many ranks saved it.
    """
    hold_parts(unwrapped(run.model))
    like = _likenesses(run)
    return {
        name: None if kind is None else _place(name, kind, like)
        for name, kind in entries.items()
        if _is_needed(name, saved_by)
    }


def _likenesses(run: RunContext) -> dict[str, Tensor]:
    """Live tensors by flat name, and parameters by the names of what has their shape."""
    weights = unwrapped(run.model).state_dict()
    like = {f"state_dict.{name}": tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    optimizers = None if run.optim_wrapper is None else run.optim_wrapper.optimizer
    named = optimizers if isinstance(optimizers, Mapping) else {"": optimizers}
    for name, optimizer in named.items():
        if isinstance(optimizer, torch.optim.Optimizer):
            prefix = f"optimizer.{name}." if name else "optimizer."
            for key, value in named_state(run.model, optimizer).items():
                if isinstance(value, Tensor):
                    like[prefix + key] = value
    return like


def _place(name: str, kind: Kind, like: Mapping[str, Tensor]) -> Tensor:
    shape, dtype = torch.Size(kind[0]), kind[1]
    live = like.get(name)
    if live is not None and live.shape == shape and live.dtype == dtype:
        return live.detach() if not isinstance(live, nn.Parameter) else live.data
    weight = _weight_of(name, like)
    if weight is not None and weight.shape == shape:
        return torch.zeros_like(weight.detach(), dtype=dtype)
    return torch.zeros(shape, dtype=dtype)


def _weight_of(name: str, like: Mapping[str, Tensor]) -> Tensor | None:
    """Return the weight that a state or an average belongs to: ``optimizer.state.{weight}.exp_avg``, say."""
    for prefix in ("ema_state_dict.module.", "ema_state_dict."):
        if name.startswith(prefix):
            return like.get(f"state_dict.{name.removeprefix(prefix)}")
    if not name.startswith("optimizer."):
        return None
    _, _, rest = name.partition("state.")
    return like.get(f"state_dict.{rest.rpartition('.')[0]}")


def _is_needed(name: str, saved_by: int) -> bool:
    if not name.startswith(_STATES):
        return True
    number = int(name.removeprefix(_STATES).partition(".")[0])
    return number == rank() % saved_by and (saved_by == world_size() or "_grads" not in name)
