"""The formulas that torch has no scheduler for, as torch schedulers.

Each computes the next value from the present one, as torch's own do, so that several schedules of one value can be
chained. The formulas are MMEngine's and, for the quadratic warmup, MMDetection's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["CosineToRatio", "CosineWithRestarts", "PolynomialTo", "QuadraticWarmup"]

Optimizer = torch.optim.Optimizer


class CosineToRatio(LRScheduler):
    """Cosine annealing to a fraction of each group's first value."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min_ratio: float) -> None:  # noqa: N803 - torch's
        self.T_max = T_max
        self.eta_min_ratio = eta_min_ratio
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the next values."""
        if self.last_epoch == 0:
            return _present(self.optimizer)
        return [
            _cosine_step(value, base, base * self.eta_min_ratio, self.last_epoch, self.T_max)
            for value, base in zip(_present(self.optimizer), self.base_lrs, strict=True)
        ]


class CosineWithRestarts(LRScheduler):
    """Cosine annealing in periods of given lengths; each starts at a weight times the first value.

    Exactly one of ``eta_min`` and ``eta_min_ratio`` is given. After the last period the value stays.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        periods: Sequence[int],
        restart_weights: Sequence[float],
        eta_min: float | None,
        eta_min_ratio: float | None,
    ) -> None:
        self.periods = list(periods)
        self.restart_weights = list(restart_weights)
        self.eta_min = eta_min
        self.eta_min_ratio = eta_min_ratio
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the next values."""
        ends = list(accumulate(self.periods))
        index = next((i for i, end in enumerate(ends) if self.last_epoch < end), None)
        if index is None:
            return _present(self.optimizer)
        period = self.periods[index]
        step = self.last_epoch - (ends[index] - period)
        if step == 0:
            return [base * self.restart_weights[index] for base in self.base_lrs]
        ratio = _cosine_ratio(step, period)
        return [
            ratio * (value - low) + low
            for value, low in zip(_present(self.optimizer), self._lows(), strict=True)
        ]

    def _lows(self) -> list[float | Tensor]:
        if self.eta_min_ratio is not None:
            return [base * self.eta_min_ratio for base in self.base_lrs]
        return [self.eta_min or 0.0 for _ in self.base_lrs]


class PolynomialTo(LRScheduler):
    """Polynomial decay to ``eta_min``, reached after ``total_iters`` steps."""

    def __init__(self, optimizer: Optimizer, total_iters: int, power: float, eta_min: float) -> None:
        self.total_iters = total_iters
        self.power = power
        self.eta_min = eta_min
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the next values."""
        if self.last_epoch == 0 or self.last_epoch > self.total_iters:
            return _present(self.optimizer)
        factor = (1 - 1 / (self.total_iters - self.last_epoch + 1)) ** self.power
        return [(value - self.eta_min) * factor + self.eta_min for value in _present(self.optimizer)]


class QuadraticWarmup(LRScheduler):
    """Grows from near nothing to the first value as the square of the step."""

    def __init__(self, optimizer: Optimizer, total_iters: int) -> None:
        self.total_iters = total_iters
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the next values."""
        added = [base * (2 * self.last_epoch + 1) / self.total_iters**2 for base in self.base_lrs]
        if self.last_epoch == 0:
            return added
        return [value + more for value, more in zip(_present(self.optimizer), added, strict=True)]


def _present(optimizer: Optimizer) -> list[float | Tensor]:
    return [group["lr"] for group in optimizer.param_groups]


def _cosine_step(
    value: float | Tensor, base: float | Tensor, low: float | Tensor, step: int, half: int
) -> float | Tensor:
    """Return the value after one step down (or, past ``half`` steps, up) the cosine."""
    if (step - 1 - half) % (2 * half) == 0:  # it was at the bottom: a ratio would divide by zero
        return value + (base - low) * (1 - math.cos(math.pi / half)) / 2
    return _cosine_ratio(step, half) * (value - low) + low


def _cosine_ratio(step: int, half: int) -> float:
    return (1 + math.cos(math.pi * step / half)) / (1 + math.cos(math.pi * (step - 1) / half))
