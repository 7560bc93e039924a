"""Parameter schedulers: torch's, stepped by epoch or by iteration, inside a range of steps.

Decides when a torch scheduler exists and when it steps; the formulas are torch's own. A scheduler whose
range begins later is created when its range begins, since creating one already changes the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from asynchooks.errors import ConfigError

__all__ = ["ParamScheduler"]


class ParamScheduler:
    """Steps one torch scheduler on the steps ``begin <= step < end``.

    Like MMEngine's: the first value holds from construction (or from ``begin``), each `step` call moves on by
    one, and what the scheduler counts starts at ``begin``.

    Args:
        optimizer: the torch optimizer whose groups are scheduled.
        create: returns a new torch scheduler for an optimizer; called when the range begins.
        by_epoch: whether `step` is called per epoch; per iteration otherwise. Read by ParamSchedulerHook.
        begin: first step of the range.
        end: first step after the range.
        monitor: metric that a scheduler of the plateau kind follows; such a one has ``need_val_args`` and its
            `step` takes the metrics of a validation.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        create: Callable[[torch.optim.Optimizer], LRScheduler],
        *,
        by_epoch: bool = True,
        begin: int = 0,
        end: float = math.inf,
        monitor: str | None = None,
    ) -> None:
        _check_range(begin, end, by_epoch=by_epoch)
        self.optimizer = optimizer
        self.by_epoch = by_epoch
        self.begin = begin
        self.end = end
        self.monitor = monitor
        self._create = create
        self._scheduler: LRScheduler | None = None
        self._global_step = 0
        if begin == 0:
            self._scheduler = create(optimizer)
        else:
            create(_stand_in(optimizer))  # so that a wrong value is refused now
        if monitor is None:
            self._global_step = 1

    @property
    def need_val_args(self) -> bool:
        """Whether `step` needs the metrics of a validation."""
        return self.monitor is not None

    @property
    def last_step(self) -> int:
        """Steps done since construction."""
        return self._global_step - (0 if self.need_val_args else 1)

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Move on by one step; outside the range, only count."""
        if self.begin <= self._global_step < self.end:
            created = self._scheduler is None
            if created:
                self._scheduler = self._create(self.optimizer)
            if self.need_val_args:
                self._step_plateau(metrics)
            elif not created and self._scheduler is not None:
                # torch warns where a scheduler steps before its optimizer; with accumulated gradients,
                # and by-iteration schedules, that is the right order.
                self.optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001
                self._scheduler.step()
        self._global_step += 1

    def get_last_value(self) -> list[float]:
        """Return the learning rate of each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the position and torch's own state: plain values and tensors."""
        inner = None if self._scheduler is None else _plain_state(self._scheduler.state_dict())
        return {"global_step": self._global_step, "scheduler": inner}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the position. The optimizer's groups are not touched: they have a state of their own."""
        if "global_step" not in state_dict:
            raise ConfigError(f"This is no state of a ParamScheduler: it holds {sorted(state_dict)}.")
        self._global_step = state_dict["global_step"]
        inner = state_dict["scheduler"]
        if inner is None:
            self._scheduler = None
            return
        if self._scheduler is None:
            groups = [dict(group) for group in self.optimizer.param_groups]
            self._scheduler = self._create(self.optimizer)
            for group, before in zip(self.optimizer.param_groups, groups, strict=True):
                group.update(before)
        self._scheduler.load_state_dict(dict(inner))

    def _step_plateau(self, metrics: Mapping[str, Any] | None) -> None:
        if self.monitor is None or metrics is None or self.monitor not in metrics:
            raise ConfigError(
                f"A plateau scheduler follows the metric {self.monitor!r}; the validation gave "
                f"{sorted(metrics) if metrics else 'none'}. Set monitor=... to one of them."
            )
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(float(metrics[self.monitor]))


def _check_range(begin: int, end: float, *, by_epoch: bool) -> None:
    if not isinstance(by_epoch, bool):
        raise ConfigError(f"by_epoch is True or False, not {by_epoch!r}.")
    for name, value in (("begin", begin), ("end", end)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"A scheduler's {name} is a step number from 0, not {value!r}.")
    if begin >= end:
        raise ConfigError(f"A scheduler's begin lies before its end, but begin={begin} and end={end}.")


def _stand_in(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1)], "lr": float(g["lr"])} for g in optimizer.param_groups]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


def _plain_state(value: Any) -> Any:
    """Return a copy without functions and objects, which no safe checkpoint can hold."""
    if isinstance(value, Mapping):
        return type(value)({k: _plain_state(v) for k, v in value.items() if not callable(v)})  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        return type(value)(_plain_state(v) for v in value)
    return value
