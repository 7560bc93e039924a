"""How much memory a run's devices have had in use."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed

__all__ = ["max_memory"]


def max_memory(runner: Any) -> Any:
    """Return the most memory that a device of this run has had in use, in MiB; a tensor, read later.

    A collective: every rank comes here with every line. None without a GPU.
    """
    if not torch.cuda.is_available():
        return None
    device = next((p.device for p in runner.model.parameters() if p.is_cuda), None)
    used = torch.cuda.max_memory_allocated(device) // 2**20
    memory = torch.tensor(used, dtype=torch.int, device=device)
    if runner.world_size > 1:
        torch.distributed.reduce(memory, 0, op=torch.distributed.ReduceOp.MAX)
    return memory
