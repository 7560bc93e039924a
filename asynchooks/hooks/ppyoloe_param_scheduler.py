"""Sets the learning rate the way that PPYOLOE trains; takes the place of the parameter schedulers' hook.

Its warmup lasts some epochs, but at least a number of iterations, which no scheduler alone can say. The values are
MMYOLO's.
"""

from __future__ import annotations

from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import policies
from asynchooks.registry import HOOKS

__all__ = ["PPYOLOEParamSchedulerHook"]


@HOOKS.register_module()
class PPYOLOEParamSchedulerHook(Hook):
    """Sets the learning rate of each iteration: a linear warmup, then a cosine over the run.

    Args:
        warmup_min_iter: least iterations of the warmup.
        start_factor: part of the learning rate that the warmup starts with.
        warmup_epochs: length of the warmup.
        min_lr_ratio: part of the learning rate that the cosine ends with.
        total_epochs: epoch at which the cosine ends; PPYOLOE's is 1.2 times the epochs of the run.
    """

    priority = 9
    effects = Effects()
    changes_state = False  # parameter groups alone, which no capture copies later

    def __init__(
        self,
        warmup_min_iter: int = 1000,
        start_factor: float = 0.0,
        warmup_epochs: float = 5,
        min_lr_ratio: float = 0.0,
        total_epochs: float = 360,
    ) -> None:
        if warmup_min_iter < 0 or warmup_epochs < 0 or total_epochs <= 0:
            raise ConfigError(
                f"PPYOLOEParamSchedulerHook: total_epochs is positive and the warmup not negative; got "
                f"total_epochs={total_epochs!r}, warmup_epochs={warmup_epochs!r}, "
                f"warmup_min_iter={warmup_min_iter!r}."
            )
        self.warmup_min_iter = warmup_min_iter
        self.start_factor = start_factor
        self.warmup_epochs = warmup_epochs
        self.min_lr_ratio = min_lr_ratio
        self.total_epochs = total_epochs
        self._base_lr: list[float] = []

    def before_train(self, runner: Any) -> None:
        """Note the first learning rates."""
        if getattr(runner, "param_schedulers", None):
            raise ConfigError(
                "PPYOLOEParamSchedulerHook sets the learning rate itself: leave param_scheduler out."
            )
        groups = runner.optim_wrapper.optimizer.param_groups
        self._base_lr = [float(group.setdefault("initial_lr", group["lr"])) for group in groups]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the learning rate of the iteration."""
        length = len(runner.train_dataloader)
        warmup = max(round(self.warmup_epochs * length), self.warmup_min_iter)
        for group, base in zip(runner.optim_wrapper.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = self._rate(base, runner.iter, warmup, self.total_epochs * length)

    def _rate(self, base: float, position: int, warmup: int, total: float) -> float:
        if position <= warmup:
            return base * policies.annealing_linear(
                self.start_factor, 1.0, position / warmup if warmup else 1.0
            )
        lowest = base * self.min_lr_ratio
        if total <= warmup:  # the cosine is over before it begins
            return lowest
        return policies.annealing_cos(base, lowest, (position - warmup) / (total - warmup))
