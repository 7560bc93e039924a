"""One rank of two: fires the points of a training at hooks that synchronize, and writes the buffers after each.

Usage: ``python ranks_program.py RANK FILE``, where FILE is where the ranks meet.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from asynchooks.execution import HookExecutor
from asynchooks.hooks.mmcv.sync_buffers import SyncBuffersHook as MmcvSyncBuffersHook
from asynchooks.hooks.sync_buffers import SyncBuffersHook
from asynchooks.optim import OptimWrapper
from asynchooks.runner import TrainState


class Buffers(nn.Module):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float(rank)]))
        self.register_buffer("mean", torch.tensor([1.0, 3.0]) * (rank + 1))
        self.register_buffer("short", torch.tensor([rank], dtype=torch.float16))
        self.register_buffer("count", torch.tensor(2 + 3 * rank))
        self.register_buffer("seen", torch.tensor([rank == 0, False]))

    def change(self, rank: int) -> None:
        buffers: Any = self
        buffers.mean += 10.0 * rank

    def values(self) -> dict[str, Any]:
        return {name: value.tolist() for name, value in [*self.named_buffers(), *self.named_parameters()]}


def run(rank: int, meeting: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    hook, old, off = SyncBuffersHook(), MmcvSyncBuffersHook(), MmcvSyncBuffersHook(distributed=False)
    seen: dict[str, Any] = {}
    model = Buffers(rank)
    state = TrainState(model)
    with HookExecutor([hook]) as executor:
        executor.fire("after_train_epoch", state)
        seen["alone"] = model.values()
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        executor.fire("after_train_epoch", state)
        seen["after_train_epoch"] = model.values()
        model.change(rank)
        executor.fire("before_val_epoch", state)
        seen["val after an epoch"] = model.values()
        executor.fire("before_val_epoch", state)
        seen["val between iterations"] = model.values()
    model.change(rank)
    with HookExecutor([off]) as executor:
        executor.fire("after_train_epoch", state)
        seen["mmcv, switched off"] = model.values()
    with HookExecutor([old]) as executor:
        executor.fire("after_val_epoch", state)
        seen["mmcv"] = model.values()
    seen["accumulated"] = accumulate(rank)
    dist.destroy_process_group()
    return seen


def accumulate(rank: int) -> dict[str, Any]:
    """Train a distributed model on this rank's part of the data, two losses per step."""
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), accumulative_counts=2)
    grads = []
    for index in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.full((1, 2), float(index + 4 * rank))).sum()
        wrapper.backward(wrapper.scale_loss(loss))
        grads.append([p.grad.tolist() for p in model.parameters() if p.grad is not None])
        if wrapper.should_update():
            wrapper.step()
            wrapper.zero_grad()
    return {"grads": grads, "weights": [p.tolist() for p in model.parameters()]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), sys.argv[2])))
