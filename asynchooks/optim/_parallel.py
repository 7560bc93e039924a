"""What an optimizer's step asks of a model that several ranks train: whether gradients are exchanged, and their norm.

Knows torch's two interfaces: ``no_sync`` of `DistributedDataParallel`, a context around the forward, and
``set_requires_gradient_sync`` of FSDP2, which must still hold in backward; here DDP models have it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["clip_grad_norm", "exchange_context", "say_exchange"]

_SAID = "_asynchooks_exchanges"


def exchange_context(model: nn.Module, *, exchanges: bool) -> AbstractContextManager[None]:
    """Return the context of a forward whose gradients the ranks exchange, or keep for themselves until later."""
    if say_exchange(model, exchanges=exchanges):
        return nullcontext()
    no_sync = None if exchanges else getattr(model, "no_sync", None)
    return nullcontext() if no_sync is None else no_sync()


def say_exchange(model: nn.Module, *, exchanges: bool) -> bool:
    """Tell a model whether gradients are exchanged from now on; return whether it can be told."""
    switch: Callable[[bool], None] | None = getattr(model, "set_requires_gradient_sync", None)
    if switch is None:
        return False
    if model.__dict__.get(_SAID, True) is not exchanges:  # FSDP2 walks over all modules
        switch(exchanges)
        model.__dict__[_SAID] = exchanges
    return True


def clip_grad_norm(parameters: Sequence[Tensor], **options: Any) -> Tensor:
    """Do as `torch.nn.utils.clip_grad_norm_`, for parameters of which each rank has a part, too.

    A collective where there are such parameters. The norm that is returned is that of all parts, on every rank.
    """
    if not any(isinstance(p, DTensor) for p in parameters):
        return nn.utils.clip_grad_norm_(parameters, **options)
    norms = [_norm(members, options) for members in _by_mesh(parameters)]
    norm_type = float(options.get("norm_type", 2.0))
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), norm_type)
    if options.get("error_if_nonfinite") and not bool(torch.isfinite(total)):
        raise RuntimeError(
            f"The total norm of order {norm_type} of the gradients is {float(total)}, so it cannot be clipped."
        )
    coefficient = (float(options["max_norm"]) / (total + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            local.mul_(coefficient.to(local.device))
    return total


def _norm(parameters: Sequence[Tensor], options: Mapping[str, Any]) -> Tensor:
    chosen = {name: options[name] for name in ("norm_type", "foreach") if name in options}
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and isinstance(gradients[0], DTensor) and math.isinf(float(options.get("norm_type", 2.0))):
        return _largest(gradients)
    norm = nn.utils.get_total_norm(gradients, **chosen)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _largest(gradients: Sequence[Any]) -> Tensor:
    """The infinity norm of parts, of which a rank may have none: torch's own fails there."""
    parts = [gradient.to_local() for gradient in gradients]
    norms = [torch.linalg.vector_norm(part, math.inf) for part in parts if part.numel()]
    largest = torch.stack(norms).amax() if norms else parts[0].new_zeros(())
    mesh = gradients[0].device_mesh
    for dimension in range(mesh.ndim):
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=mesh.get_group(dimension))
    return largest


def _by_mesh(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters whose gradients can be summed up together, in the same order on every rank."""
    groups: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        key = (parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else None
        groups.setdefault(key, []).append(parameter)
    return list(groups.values())
