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

from asynchooks.errors import ConfigError, UnknownNameError

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

    Attributes:
        last_step: the newest step inside the range, counted from 0; -1 before it begins.
    """

    last_step: int = -1

    def __init__(
        self,
        optimizer: Any,
        create: Callable[[torch.optim.Optimizer], LRScheduler],
        *,
        by_epoch: bool = True,
        begin: float = 0,
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
        if begin > 0:
            create(_stand_in(optimizer))  # so that a wrong value is refused now
        elif monitor is not None:
            self._scheduler = self._open()
        if monitor is None:
            self.step()

    @property
    def need_val_args(self) -> bool:
        """Whether `step` needs the metrics of a validation."""
        return self.monitor is not None

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Move on by one step; outside the range, only count."""
        if self.begin <= self._global_step < self.end:
            if self.need_val_args:
                self._follow(metrics)
            elif self._scheduler is None:
                self._scheduler = self._open()
            else:
                self._advance(self._scheduler)
            self.last_step += 1
        self._global_step += 1

    def get_last_value(self) -> list[float]:
        """Return the scheduled value, here the learning rate, of each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the position and torch's own state: plain values and tensors, nothing of it live."""
        inner = None if self._scheduler is None else plain(self._scheduler.state_dict())
        return {"global_step": self._global_step, "last_step": self.last_step, "scheduler": inner}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the position. The optimizer's groups are not touched: they have a state of their own."""
        if "global_step" not in state_dict:
            raise ConfigError(f"This is no state of a ParamScheduler: it holds {sorted(state_dict)}.")
        self._global_step = state_dict["global_step"]
        self.last_step = state_dict.get("last_step", self._steps_in_range() - 1)
        inner = state_dict["scheduler"]
        if inner is None:
            self._scheduler = None
            return
        if self._scheduler is None:
            groups = [dict(group) for group in self.optimizer.param_groups]
            self._scheduler = self._open()
            for group, before in zip(self.optimizer.param_groups, groups, strict=True):
                group.update(before)
        self._scheduler.load_state_dict(plain(inner))

    def _open(self) -> LRScheduler:
        """Create the torch scheduler, which sets the first value."""
        return self._create(self.optimizer)

    def _advance(self, scheduler: LRScheduler, metric: float | None = None) -> None:
        """Move the torch scheduler on by one, or show it a metric."""
        if metric is not None:
            _plateau(scheduler).step(metric)
            return
        # torch warns where a scheduler steps before its optimizer; with accumulated gradients,
        # and by-iteration schedules, that is the right order.
        scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001
        scheduler.step()

    def _follow(self, metrics: Mapping[str, Any] | None) -> None:
        if self.monitor is None or metrics is None or self.monitor not in metrics:
            raise UnknownNameError(
                f"A plateau scheduler follows the metric {self.monitor!r}; the validation gave "
                f"{sorted(metrics) if metrics else 'none'}. Set monitor=... to one of them."
            )
        if self._scheduler is None:
            self._scheduler = self._open()
        self._advance(self._scheduler, float(metrics[self.monitor]))

    def _steps_in_range(self) -> int:
        return max(0, math.ceil(min(self._global_step, self.end)) - math.ceil(self.begin))


def _plateau(scheduler: LRScheduler) -> ReduceLROnPlateau:
    if not isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(f"monitor=... belongs to a plateau scheduler, not to {type(scheduler).__name__}.")
    return scheduler


def _check_range(begin: float, end: float, *, by_epoch: bool) -> None:
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


def plain(value: Any) -> Any:
    """Return a copy without functions and objects, which no safe checkpoint can hold."""
    if isinstance(value, Mapping):
        return type(value)({k: plain(v) for k, v in value.items() if not callable(v)})  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
