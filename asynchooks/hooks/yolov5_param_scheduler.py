"""Sets learning rate and momentum the way that YOLOv5 trains; takes the place of the parameter schedulers' hook.

Its warmup lasts some epochs, but at least a number of iterations, which no scheduler alone can say. The values are
MMYOLO's; they are plain floats here, so that checkpoints load without pickled code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import policies
from asynchooks.registry import HOOKS

__all__ = ["YOLOv5ParamSchedulerHook"]

_BIASES = 2  # the parameter group that YOLOv5's optimizer constructor puts the biases into


@HOOKS.register_module()
class YOLOv5ParamSchedulerHook(Hook):
    """Warms learning rate and momentum up by iteration, then decays the learning rate by epoch.

    In the warmup the learning rate grows from 0 (that of the third parameter group, the biases, comes from
    ``warmup_bias_lr``) to the epoch's own, and the momentum goes from ``warmup_momentum`` to the optimizer's.

    Args:
        scheduler_type: "linear" or "cosine": the way from 1 to ``lr_factor`` in ``max_epochs``.
        lr_factor: last learning rate as a part of the first one.
        max_epochs: length of the decay.
        warmup_epochs: length of the warmup.
        warmup_bias_lr: learning rate that the biases start with.
        warmup_momentum: momentum that the warmup starts with.
        warmup_mim_iter: least iterations of the warmup (MMYOLO's spelling).
    """

    priority = 9
    effects = Effects()
    changes_state = False  # parameter groups alone, which no capture copies later

    def __init__(
        self,
        scheduler_type: str = "linear",
        lr_factor: float = 0.01,
        max_epochs: int = 300,
        warmup_epochs: float = 3,
        warmup_bias_lr: float = 0.1,
        warmup_momentum: float = 0.8,
        warmup_mim_iter: int = 1000,
    ) -> None:
        if scheduler_type not in _FACTORS:
            raise ConfigError(
                f"YOLOv5ParamSchedulerHook: scheduler_type is one of {list(_FACTORS)}, not {scheduler_type!r}."
            )
        if max_epochs <= 0 or warmup_epochs < 0 or warmup_mim_iter < 0:
            raise ConfigError(
                f"YOLOv5ParamSchedulerHook: max_epochs is positive and the warmup not negative; got "
                f"max_epochs={max_epochs!r}, warmup_epochs={warmup_epochs!r}, warmup_mim_iter={warmup_mim_iter!r}."
            )
        self.lr_factor = lr_factor
        self.max_epochs = max_epochs
        self.warmup_epochs = warmup_epochs
        self.warmup_bias_lr = warmup_bias_lr
        self.warmup_momentum = warmup_momentum
        self.warmup_mim_iter = warmup_mim_iter
        self._factor_at = _FACTORS[scheduler_type]
        self._warmup_end = False
        self._base_lr: list[float] = []
        self._base_momentum: list[float | None] = []

    def before_train(self, runner: Any) -> None:
        """Note the first learning rates and momenta."""
        if getattr(runner, "param_schedulers", None):
            raise ConfigError(
                "YOLOv5ParamSchedulerHook sets the learning rate itself: leave param_scheduler out."
            )
        self._base_lr = [float(group.setdefault("initial_lr", group["lr"])) for group in _groups(runner)]
        self._base_momentum = [
            float(group.setdefault("initial_momentum", group["momentum"])) if "momentum" in group else None
            for group in _groups(runner)
        ]
        self._warmup_end = runner.iter > self._warmup_iters(runner)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the values of the warmup."""
        length = self._warmup_iters(runner)
        self._warmup_end = runner.iter > length
        if self._warmup_end:
            return
        part = runner.iter / length if length else 1.0
        for index, (group, rate) in enumerate(zip(_groups(runner), self._regular(runner), strict=True)):
            first = self.warmup_bias_lr if index == _BIASES else 0.0
            group["lr"] = policies.annealing_linear(first, rate, part)
            momentum = self._base_momentum[index]
            if momentum is not None:
                group["momentum"] = policies.annealing_linear(self.warmup_momentum, momentum, part)

    def after_train_epoch(self, runner: Any) -> None:
        """After the warmup, set the learning rate for the next epoch: that which belongs to this one's number."""
        if self._warmup_end:
            for group, rate in zip(_groups(runner), self._regular(runner), strict=True):
                group["lr"] = rate

    def _regular(self, runner: Any) -> list[float]:
        factor = self._factor_at(runner.epoch / self.max_epochs, self.lr_factor)
        return [base * factor for base in self._base_lr]

    def _warmup_iters(self, runner: Any) -> int:
        return max(round(self.warmup_epochs * len(runner.train_dataloader)), self.warmup_mim_iter)


def _linear(part: float, last: float) -> float:
    return (1 - part) * (1 - last) + last


def _cosine(part: float, last: float) -> float:
    return (1 - math.cos(part * math.pi)) / 2 * (last - 1) + 1


_FACTORS: Mapping[str, Callable[[float, float], float]] = {"linear": _linear, "cosine": _cosine}


def _groups(runner: Any) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = runner.optim_wrapper.optimizer.param_groups
    return groups
