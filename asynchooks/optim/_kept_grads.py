"""Gradients that a sharded model keeps whole on each rank, while they are summed up and not exchanged.

FSDP2 does not show them in ``Parameter.grad``: this reads and writes its own attributes, as they are in torch 2.6 to
2.13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

__all__ = ["kept_gradients", "put_back_gradients"]


def kept_gradients(model: nn.Module) -> list[Tensor | None]:
    """Return this rank's gradients, in the order of the model's modules; live tensors."""
    return [_kept(parameter) for parameter in _parameters(model)]


def put_back_gradients(model: nn.Module, gradients: Sequence[Tensor | None]) -> None:
    """Put back what `kept_gradients` returned, on the same rank of as many."""
    for parameter, gradient in zip(_parameters(model), gradients, strict=True):
        if gradient is None:
            parameter.unsharded_accumulated_grad = None
        else:
            device = parameter.sharded_param.device
            parameter.unsharded_accumulated_grad = gradient.to(device, copy=True)


def _kept(parameter: Any) -> Tensor | None:
    found: Tensor | None = parameter.unsharded_accumulated_grad
    if found is None and hasattr(parameter, "_unsharded_param"):
        found = parameter._unsharded_param.grad  # noqa: SLF001
    return found


def _parameters(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            state: Any = module._get_fsdp_state()  # noqa: SLF001
            groups = getattr(state, "_fsdp_param_groups", None)
            for group in [state._fsdp_param_group] if groups is None else groups:  # noqa: SLF001
                yield from () if group is None else group.fsdp_params
