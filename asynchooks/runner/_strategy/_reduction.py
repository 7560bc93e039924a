"""Gradients that ranks average in backward, on a model that stays as it is: torch's DDP behind hooks of the model.

`torch.distributed._composable.replicate` does the same; it changes the model's class and cannot be copied, as an
average of the weights must be, and it exchanges no buffers. Here a copy of the model is a plain one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Reduction", "reductions_of", "share_from_first"]

_KEY = "_asynchooks_reduction"


class Reduction:
    """The exchange of gradients of one module, in whose forward it takes part.

    Args:
        module: its parameters' gradients are averaged over the ranks.
        ddp: torch's wrapper of those parameters.
        broadcast_buffers: whether the first rank's buffers replace the others' before each training forward.

    Attributes:
        forwards: forward passes with gradients so far.
    """

    def __init__(
        self, module: nn.Module, ddp: DistributedDataParallel | None, *, broadcast_buffers: bool
    ) -> None:
        self._ddp = ddp
        self._buffers = list(module.buffers()) if broadcast_buffers else []
        self.forwards = 0
        if ddp is not None:
            module.register_forward_pre_hook(self._before_forward, with_kwargs=True)
            module.register_forward_hook(self._after_forward)
            module.__dict__[_KEY] = self

    def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None:  # noqa: FBT001 - torch's name
        """Say, before a forward, whether the gradients of its backward are exchanged."""
        if self._ddp is not None:
            self._ddp.require_backward_grad_sync = requires_gradient_sync

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of the model is nobody's replica: its hooks do nothing."""
        return type(self)(nn.Module(), None, broadcast_buffers=False)

    def _before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self._ddp is None or not torch.is_grad_enabled():
            return None
        self.forwards += 1
        if self._buffers and module.training:
            broadcast(self._buffers)
        DistributedDataParallel._active_ddp_module = self._ddp  # noqa: SLF001 - as in DDP.forward
        return self._ddp._pre_forward(*args, **kwargs)  # type: ignore[no-untyped-call]  # noqa: SLF001

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._ddp is None or not torch.is_grad_enabled():
            return None
        DistributedDataParallel._active_ddp_module = None  # noqa: SLF001
        return self._ddp._post_forward(output)  # type: ignore[no-untyped-call]  # noqa: SLF001


def reductions_of(model: nn.Module) -> list[Reduction]:
    """Return the reductions in a model."""
    return [module.__dict__[_KEY] for module in model.modules() if _KEY in module.__dict__]


@torch.no_grad()
def share_from_first(model: nn.Module) -> None:
    """Give every rank the first one's parameters and buffers. A collective."""
    broadcast([t.data for t in (*model.parameters(), *model.buffers()) if not t.is_meta])


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give every rank the first one's tensors, in place: those of one dtype and device in one message."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for members in groups.values():
        for part in _parts(members):
            flat = torch.cat([member.reshape(-1) for member in part])
            dist.broadcast(flat, 0)
            for member, value in zip(part, torch.split(flat, [m.numel() for m in part]), strict=True):
                member.copy_(value.view_as(member))


def _parts(tensors: Iterable[Tensor], limit: int = 256 * 2**20) -> Iterable[list[Tensor]]:
    part: list[Tensor] = []
    nbytes = 0
    for tensor in tensors:
        if part and nbytes + tensor.nbytes > limit:
            yield part
            part, nbytes = [], 0
        part.append(tensor)
        nbytes += tensor.nbytes
    if part:
        yield part
