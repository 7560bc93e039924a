"""A model without its numbers: its modules, names and shapes, safe to look at while training goes on."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["skeleton"]


def skeleton(model: Any) -> Any:
    """Return a copy of a module whose parameters and buffers are on the device "meta": shapes and types alone.

    Training thread. Costs no memory for the tensors. What hangs on modules besides is copied.

    Raises:
        TypeError, RuntimeError: the model holds something that cannot be copied.
    """
    import torch

    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    model = model.module if isinstance(model, parallel) else model
    memo: dict[int, Any] = {}
    for tensor in model.parameters():
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        memo[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    for tensor in model.buffers():
        memo[id(tensor)] = torch.empty_like(tensor, device="meta")
    return copy.deepcopy(model, memo)
