"""What runs on each rank beside the saves: a transformer's state, replicated or sharded, and steps that meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import xxhash
from torch import nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

if TYPE_CHECKING:
    from sharded_peers.case import Kind, Shard

__all__ = ["Step", "Training"]

_MATRIX = 384
_PRODUCTS = 4
_GRADIENTS = 64_000
_WHOLE = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One step, in seconds.

    Attributes:
        step_s: compute, the meeting of all ranks, and the update.
        waited_s: before the update, for a contender that was still copying.
        cpu_s: processor time of this thread.
        pending: ranks that said before the step that their save was not over.
    """

    step_s: float
    waited_s: float
    cpu_s: float
    pending: int


class Training:
    """A model and AdamW; a step is some matrix products, an all_reduce of 256 KB, and an update in place.

    The update touches the first element of every tensor, and a few whole ones, so that a copy torn between two steps
    differs from the state at the call in each tensor that it tore.

    Args:
        kind: of state.
        size_mb: parameters and both moments, all ranks together.
        layers: 8 parameters each.
    """

    def __init__(self, kind: Kind, size_mb: int, layers: int) -> None:
        torch.manual_seed(0)
        width = max(8, int((size_mb * 1e6 / 12 / layers / 12) ** 0.5) // 8 * 8)
        model = nn.Sequential(*(_Block(width) for _ in range(layers)))
        if kind == "fsdp2":
            for block in model:
                fully_shard(block)
            fully_shard(model)
            self._model: nn.Module = model
        else:
            self._model = nn.parallel.DistributedDataParallel(model)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        get_state_dict(self._model, self._optimizer)  # makes the optimizer's state
        torch.manual_seed(dist.get_rank() if kind == "fsdp2" else 1)
        self._tensors = [_local(tensor) for tensor in _flat(self.state()).values()]
        for tensor in self._tensors:
            if tensor.numel() > 1:
                tensor.uniform_()
        self._firsts = [tensor.view(-1)[:1] for tensor in self._tensors if tensor.numel()]
        self._whole = [tensor for tensor in self._tensors if tensor.dim() > 1][:_WHOLE]
        self._a, self._b, self._c = (torch.rand(_MATRIX, _MATRIX) for _ in range(3))
        self._gradients = torch.zeros(_GRADIENTS)
        self.iteration = 0

    @property
    def local_bytes(self) -> int:
        """What this rank holds."""
        return sum(tensor.nbytes for tensor in self._tensors)

    @torch.no_grad()
    def step(self, *, pending: bool, before_update: Callable[[], object]) -> Step:
        """Do one step on every rank; returns when all have."""
        start, cpu_s = time.perf_counter(), time.thread_time()
        for _ in range(_PRODUCTS):
            torch.mm(self._a, self._b, out=self._c)
        self._gradients.fill_(0.5)
        self._gradients[0] = float(pending)
        dist.all_reduce(self._gradients)
        still = int(self._gradients[0])
        met = time.perf_counter()
        before_update()
        waited = time.perf_counter()
        torch._foreach_add_(self._firsts, 1.0)
        torch._foreach_mul_(self._whole, 0.999)
        self.iteration += 1
        end = time.perf_counter()
        return Step((met - start) + (end - waited), waited - met, time.thread_time() - cpu_s, still)

    def state(self) -> dict[str, Any]:
        """Return the live state under full names, as `torch.distributed.checkpoint.state_dict` has it."""
        model, optimizer = get_state_dict(self._model, self._optimizer)
        return {"model": model, "optimizer": optimizer, "meta": {"step": getattr(self, "iteration", 0)}}

    def shards(self) -> list[Shard]:
        """Return what this rank holds now, with a digest of each part."""
        found: list[Shard] = []
        for name, tensor in _flat(self.state()).items():
            local, offsets = _local(tensor), [0] * tensor.dim()
            if isinstance(tensor, DTensor):
                offsets = list(
                    compute_local_shape_and_global_offset(
                        tensor.shape, tensor.device_mesh, tensor.placements
                    )[1]
                )
            if local.numel():
                found.append((name, offsets, list(local.shape), digest(local)))
        return found


def digest(tensor: torch.Tensor) -> str:
    """Return what a tensor holds, briefly."""
    return xxhash.xxh3_64_hexdigest(tensor.detach().contiguous().view(-1).numpy().data)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)


def _flat(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in flatten_state_dict(state)[0].items() if isinstance(value, torch.Tensor)
    }


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
