"""Background parts of loggers, put together; and a copy of a model that they may use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import torch

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["copy_on_host", "in_order", "in_thread"]


def in_thread(function: Callable[[], object]) -> BackgroundPart:
    """Return a part that calls a function in a worker thread."""

    async def part() -> None:
        await anyio.to_thread.run_sync(function)

    return part


def in_order(*parts: BackgroundPart | None) -> BackgroundPart | None:
    """Return a part that runs those that there are, one after the other; None where there is none."""
    present = [part for part in parts if part is not None]
    if not present:
        return None

    async def run() -> None:
        for part in present:
            await part()

    return run


def copy_on_host(model: Any) -> Any:
    """Return a copy of a model, without its wrapper, whose tensors are in the host's memory. Training thread."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    model = model.module if isinstance(model, wrappers) else model
    memo: dict[int, Any] = {}
    for tensor in model.parameters():
        memo[id(tensor)] = torch.nn.Parameter(tensor.detach().cpu().clone(), tensor.requires_grad)
    for tensor in model.buffers():
        memo[id(tensor)] = tensor.detach().cpu().clone()
    return copy.deepcopy(model, memo)
