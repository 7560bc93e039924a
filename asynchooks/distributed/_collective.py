"""Averages of tensors over the ranks of a process group. Collectives: every rank calls, on the training thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["all_reduce_mean"]


@torch.no_grad()
def all_reduce_mean(tensors: Iterable[Tensor]) -> None:
    """Give every rank the mean over the ranks of each tensor, in place; one exchange per dtype and device.

    Means of integers are rounded down; of booleans, it is whether any rank has it. A `DTensor` stays as it is: of its
    parts, each rank has its own.

    Args:
        tensors: the same on every rank, in number, order, shapes and dtypes.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            continue
        groups[tensor.dtype, tensor.device].append(tensor)
    for (dtype, _), members in groups.items():
        flat = torch.cat([member.reshape(-1) for member in members])
        if dtype == torch.bool:
            flat = flat.to(torch.uint8)
            dist.all_reduce(flat, op=dist.ReduceOp.MAX)
        elif dtype.is_floating_point or dtype.is_complex:
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        else:
            flat = flat.to(torch.int64)  # the sum may not fit into fewer bits
            dist.all_reduce(flat)
            flat = flat.div(dist.get_world_size(), rounding_mode="floor")
        for member, mean in zip(members, torch.split(flat, [m.numel() for m in members]), strict=True):
            member.copy_(mean.view_as(member))
