"""Schedulers with MMEngine's names and arguments, of any value in the parameter groups.

Torch's schedulers know learning rates alone. Here they work on a stand-in optimizer, whose learning rates stand for
the values that are scheduled: the values go there before each step and come back after it. So one formula, torch's
where torch has it, serves learning rate, momentum and every other value, and the real optimizer is not patched.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch.optim.lr_scheduler import LRScheduler

from asynchooks.errors import ConfigError
from asynchooks.optim._group_value import GroupValue
from asynchooks.optim._schedulers._pace import Pace
from asynchooks.optim._schedulers._param_scheduler import ParamScheduler

__all__ = ["FOREVER", "GroupScheduler", "per_group", "range_length"]

logger = logging.getLogger(__name__)

FOREVER = 10**9  # MMEngine's "no end": what is computed from a range without an end is computed with it


class GroupScheduler(ParamScheduler):
    """Schedules one value of every parameter group; the base of the families.

    Args:
        optimizer: a torch optimizer, or a wrapper with ``param_groups`` and ``defaults``.
        param_name: key of the value, such as "lr".
        create: returns the torch scheduler that computes the values, for a stand-in optimizer.
        begin, end: the range, ``begin <= step < end``.
        last_step: newest step that the values in the groups stand at, to go on without a state; -1 starts anew.
        by_epoch: whether steps are epochs, or iterations.
        verbose: whether every change is logged.
        monitor: metric that a plateau scheduler follows.

    Attributes:
        base_values: each group's value from before every schedule, noted in the group as ``initial_<param_name>``.
        pace: how the steps of a schedule by iteration go with the epochs that its length is from; else None.

    Raises:
        TypeError: ``optimizer`` has no parameter groups.
        KeyError: ``last_step`` is given and a group has no ``initial_<param_name>``.
    """

    # Arguments that count epochs, beside begin and end, where a configuration does.
    counting: ClassVar[tuple[str, ...]] = ()
    # Argument that says how long the schedule is; where there is none, or it is None, the range does.
    length_name: ClassVar[str | None] = None
    # Whether the length matters to the values at all.
    needs_length: ClassVar[bool] = False

    pace: Pace | None = None

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        create: Callable[[torch.optim.Optimizer], LRScheduler],
        *,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        monitor: str | None = None,
    ) -> None:
        if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "defaults"):
            raise TypeError(f"{type(self).__name__} schedules a torch optimizer's groups, not {optimizer!r}.")
        if isinstance(last_step, bool) or not isinstance(last_step, int) or last_step < -1:
            raise ConfigError(f"{type(self).__name__}: last_step is an int from -1, not {last_step!r}.")
        self.param_name = param_name
        self.verbose = verbose
        self.last_step = last_step
        self._value = self._locate(optimizer)
        self.base_values = self._first_values(optimizer.param_groups)
        self._proxy: torch.optim.Optimizer
        super().__init__(optimizer, create, begin=begin, end=end, by_epoch=by_epoch, monitor=monitor)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        begin: float = 0,
        end: float = FOREVER,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a scheduler by iteration, from arguments that count epochs (which may be fractions).

        Args:
            *args: arguments of the class.
            begin: first epoch of the range.
            end: first epoch after it.
            by_epoch: True: what is converted counts epochs.
            epoch_length: iterations per epoch.
            **kwargs: arguments of the class.
        """
        if not by_epoch:
            raise ConfigError(
                f"{cls.__name__}: convert_to_iter_based converts epochs, and by_epoch=False counts iterations."
            )
        if isinstance(epoch_length, bool) or not isinstance(epoch_length, int) or epoch_length < 1:
            raise ConfigError(f"{cls.__name__}: epoch_length is a positive int, not {epoch_length!r}.")
        for name in cls.counting:
            if kwargs.get(name) is not None:
                kwargs[name] = _scaled(kwargs[name], epoch_length)
        end = int(end * epoch_length) if end < FOREVER else end
        return cls(*args, begin=int(begin * epoch_length), end=end, by_epoch=False, **kwargs)

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Move on by one step, or by as many as the pace says; outside the range, only count."""
        for _ in range(1 if self.pace is None else self.pace.steps_due()):
            super().step(metrics)

    def get_last_value(self) -> list[float]:
        """Return the scheduled value of each parameter group."""
        return [self._value.read(group) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the base values and torch's own state: plain values, nothing of it live."""
        state = {**super().state_dict(), "base_values": list(self.base_values)}
        return state if self.pace is None else {**state, "pace": self.pace.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the position. The optimizer's groups are not touched: they have a state of their own."""
        if self.pace is not None and "pace" in state_dict:
            self._take_up_pace(self.pace, state_dict["pace"])
        self.base_values = list(state_dict.get("base_values", self.base_values))
        if state_dict.get("scheduler") is not None and self._scheduler is None:
            self._scheduler = self._create_on_proxy()
        super().load_state_dict(state_dict)

    def _take_up_pace(self, pace: Pace, state: Mapping[str, int]) -> None:
        """Become the schedule of epochs of another length, where the state is of such a one."""
        before = pace.unit
        pace.load_state_dict(state)
        if pace.unit == before:
            return
        groups = [dict(group) for group in self.optimizer.param_groups]
        twin = pace.build(pace.unit)
        for group, values in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(values)
        self.begin, self.end, self._create, self._scheduler = twin.begin, twin.end, twin._create, None  # noqa: SLF001

    def _locate(self, optimizer: Any) -> GroupValue:
        return GroupValue(self.param_name)

    def _first_values(self, groups: Sequence[dict[str, Any]]) -> list[float]:
        name = f"initial_{self._value.name}"
        if self.last_step >= 0 and not all(name in group for group in groups):
            raise KeyError(f"last_step={self.last_step} needs {name!r} in every parameter group.")
        return [self._value.first(group) for group in groups]

    def _open(self) -> LRScheduler:
        scheduler = self._create_on_proxy()
        if self.last_step >= 0:
            scheduler.last_epoch = self.last_step
            self._advance(scheduler)
        else:
            self._take_back()
        return scheduler

    def _create_on_proxy(self) -> LRScheduler:
        self._proxy = _proxy(self.get_last_value(), self.base_values)
        return self._create(self._proxy)

    def _advance(self, scheduler: LRScheduler, metric: float | None = None) -> None:
        for group, value in zip(self._proxy.param_groups, self.get_last_value(), strict=True):
            group["lr"] = value
        super()._advance(scheduler, metric)
        self._take_back()

    def _take_back(self) -> None:
        for index, (group, proxy) in enumerate(
            zip(self.optimizer.param_groups, self._proxy.param_groups, strict=True)
        ):
            self._value.write(group, float(proxy["lr"]))
            if self.verbose:
                logger.info("%s of parameter group %d is now %.4e", self.param_name, index, proxy["lr"])


def per_group(values: Any, optimizer: Any) -> Any:
    """Return one number as it is, and one per parameter group with the last one again for a wrapper's base group.

    A wrapper may have one group more than its optimizer, with the settings before every group's own factors.
    """
    if not isinstance(values, Sequence):
        return values
    groups = getattr(optimizer, "optimizer", optimizer).param_groups
    if len(values) != len(groups):
        raise ConfigError(
            f"There are {len(groups)} parameter groups: give one number, or as many, not {values!r}."
        )
    extra = len(optimizer.param_groups) - len(groups)
    return [*values, *[values[-1]] * extra]


def range_length(begin: float, end: float) -> int:
    """Return how many steps a range has; one without an end has MMEngine's number of them."""
    return math.ceil(min(end, FOREVER)) - math.ceil(begin)


def _proxy(values: Sequence[float], first: Sequence[float]) -> torch.optim.Optimizer:
    groups = [
        {"params": [torch.zeros(1)], "lr": value, "initial_lr": initial}
        for value, initial in zip(values, first, strict=True)
    ]
    return torch.optim.SGD(groups, lr=0.0)


def _scaled(value: Any, factor: int) -> Any:
    return [each * factor for each in value] if isinstance(value, Sequence) else value * factor
