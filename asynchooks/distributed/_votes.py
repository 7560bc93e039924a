"""Agreement of all ranks at a hook point, one vote behind: no rank waits for another, or for a device.

Decides when an answer is read: a vote that is cast at one iteration is read at the next, by which time it has
travelled beside the step. All ranks read the same answer at the same iteration, so what follows from it they do
together. What a vote costs stands in this folder's README.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from asynchooks.distributed._control import answered

__all__ = ["Votes"]

_BITS = 31


class Votes:
    """Flags that any rank may raise, and all hear of. Training thread; every rank casts at the same points.

    Settle before leaving: a process that ends in the midst of a vote fails it for the others.

    Args:
        group: a gloo group that nothing else uses while a vote is under way: see `control_group`; None for a process
            without ranks, which agrees with itself at once.
        timeout_s: how long a vote may take, and so how far ranks may be apart in their steps. A rank that has ended
            is noticed at once; one that hangs, or whose machine is gone, after so long.
    """

    def __init__(self, group: Any, *, timeout_s: float = 600.0) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s} must be above 0")
        self._group = group
        self._options = dist.AllreduceOptions()
        self._options.reduceOp = dist.ReduceOp(dist.ReduceOp.BOR)
        # of the operation, and not of the wait: the group's thread gives it up too, and the process can end
        self._options.timeout = timedelta(seconds=timeout_s)
        self._flags = torch.zeros(1, dtype=torch.int32)
        self._under_way: Any = None

    def cast(self, flags: int) -> int:
        """Vote; return the flags that any rank raised in the vote before, 0 at the first one.

        Args:
            flags: bits, below ``2**31``.

        Raises:
            DistributedError: a rank does not answer any more.
        """
        if self._group is None:
            return flags
        agreed = self.settle()
        if flags >> _BITS:
            raise ValueError(f"flags={flags:#x} has more than {_BITS} bits")
        self._flags.fill_(flags)
        with answered():
            self._under_way = self._group.allreduce([self._flags], self._options)
        return agreed

    def settle(self) -> int:
        """Return what the vote under way has agreed, 0 where there is none; waits for it.

        Raises:
            DistributedError: a rank does not answer any more.
        """
        vote, self._under_way = self._under_way, None
        if vote is None:
            return 0
        with answered():
            vote.wait()
        return int(self._flags)
