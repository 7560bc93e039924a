"""Every rank has a part of each parameter, of its gradient and of its optimizer state: torch's FSDP2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

from asynchooks.errors import ConfigError
from asynchooks.registry import STRATEGIES, check_options
from asynchooks.runner._steps import device_of
from asynchooks.runner._strategy._reduction import share_from_first

__all__ = ["FSDP2"]

_CONTAINERS = (nn.ModuleList, nn.Sequential)


@STRATEGIES.register_module(name=["FSDP2", "FSDPStrategy"])
class FSDP2:
    """Sharded training with torch's `fully_shard`: block by block, and what is left with the model itself.

    A model's own ``train_step`` must call the model (``self(...)``): there its parameters are gathered.

    Args:
        blocks: names of the classes, or of the submodules, that are gathered each on its own. None takes each module
            in a ``ModuleList`` or ``Sequential``, the outermost ones.
        reshard_after_forward: whether the parameters of a block are let go of between its forward and its backward;
            an int keeps them on that many ranks. False is faster and needs more memory.
        mixed_precision: ``dict(param_dtype="bfloat16", reduce_dtype="float32", output_dtype=None,
            cast_forward_inputs=True)`` or torch's `MixedPrecisionPolicy`; None computes in the parameters' dtype.
        offload: whether parts are kept on the CPU.
        mesh: ranks as ``(replicas, ranks that share one)``; None shards over all of them.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] | None = None,
        reshard_after_forward: bool | int = True,
        mixed_precision: Mapping[str, Any] | MixedPrecisionPolicy | None = None,
        offload: bool = False,
        mesh: tuple[int, int] | None = None,
    ) -> None:
        if isinstance(blocks, str) or (
            blocks is not None and not all(isinstance(name, str) for name in blocks)
        ):
            raise ConfigError(f"FSDP2: blocks is a list of names such as ['Block'], not {blocks!r}.")
        self._blocks = blocks
        self._mesh = mesh
        self._options: dict[str, Any] = {"reshard_after_forward": reshard_after_forward}
        policy = _policy(mixed_precision)
        if policy is not None:
            self._options["mp_policy"] = policy
        if offload:
            self._options["offload_policy"] = CPUOffloadPolicy()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Have a model's ranks start with the first one's weights, each with its part of them. A collective."""
        share_from_first(model)
        options = {**self._options, "mesh": self._device_mesh(device_of(model).type)}
        for block in self._chosen(model):
            fully_shard(block, **options)
        fully_shard(model, **options)
        return model

    def _device_mesh(self, device_type: str) -> Any:
        if self._mesh is None:
            return init_device_mesh(device_type, (dist.get_world_size(),), mesh_dim_names=("shard",))
        return init_device_mesh(device_type, tuple(self._mesh), mesh_dim_names=("replica", "shard"))

    def _chosen(self, model: nn.Module) -> list[nn.Module]:
        """The blocks, inner ones first; without those whose parameters stand elsewhere too."""
        if self._blocks is None:
            found = list(_outermost(model))
        else:
            names = set(self._blocks)
            found = [
                module
                for name, module in model.named_modules()
                if module is not model and (name in names or type(module).__name__ in names)
            ]
            if not found:
                raise ConfigError(
                    f"FSDP2: blocks={list(self._blocks)!r} names nothing in {type(model).__name__}; it has "
                    f"{sorted({type(m).__name__ for m in model.modules()})}."
                )
        return [block for block in reversed(found) if not _shares_parameters(block, model)]


def _outermost(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children() if not isinstance(model, _CONTAINERS) else ():
        yield from _outermost(child)
    if isinstance(model, _CONTAINERS):
        for child in model:
            if isinstance(child, _CONTAINERS):
                yield from _outermost(child)
            elif any(True for _ in child.parameters()):
                yield child


def _shares_parameters(block: nn.Module, model: nn.Module) -> bool:
    """Whether a block has no parameters, or one that is the model's elsewhere: it cannot be in two groups."""
    inside = {id(p) for p in block.parameters()}
    own = {id(module) for module in block.modules()}
    outside = (p for m in model.modules() if id(m) not in own for p in m.parameters(recurse=False))
    return not inside or any(id(p) in inside for p in outside)


def _policy(given: Mapping[str, Any] | MixedPrecisionPolicy | None) -> MixedPrecisionPolicy | None:
    if given is None or isinstance(given, MixedPrecisionPolicy):
        return given
    check_options(MixedPrecisionPolicy, given)
    return MixedPrecisionPolicy(**{name: _dtype(name, value) for name, value in given.items()})


def _dtype(name: str, value: Any) -> Any:
    if not name.endswith("dtype") or value is None or isinstance(value, torch.dtype):
        return value
    found = getattr(torch, str(value), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"FSDP2: mixed_precision: {name} is a dtype such as 'bfloat16', not {value!r}.")
    return found
