"""Learning rate updaters: what they share, and the policies by steps, factors and powers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.hooks.mmcv.updaters._updater import ByGroup, UpdaterHook, by_optimizer
from asynchooks.optim import GroupValue, policies
from asynchooks.registry import MMCV_HOOKS

__all__ = [
    "ExpLrUpdaterHook",
    "FixedLrUpdaterHook",
    "InvLrUpdaterHook",
    "LrUpdaterHook",
    "PolyLrUpdaterHook",
    "StepLrUpdaterHook",
    "checked_step",
]

_LR = GroupValue("lr")


class LrUpdaterHook(UpdaterHook):
    """Sets the learning rate of every parameter group; the base of a policy, which defines `get_lr`.

    A policy ``P`` is ``PLrUpdaterHook`` and is configured by ``lr_config=dict(policy="P", ...)``.

    Args:
        by_epoch: whether the rate changes from epoch to epoch, or from iteration to iteration.
        warmup: None, "constant", "linear" or "exp".
        warmup_iters: how long the warmup lasts, in iterations.
        warmup_ratio: part of the regular rate that the warmup starts with.
        warmup_by_epoch: whether ``warmup_iters`` counts epochs.
    """

    priority = "VERY_HIGH"

    def __init__(
        self,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's signature
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.1,
        warmup_by_epoch: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(
            by_epoch=by_epoch,
            warmup=warmup,
            warmup_iters=warmup_iters,
            warmup_ratio=warmup_ratio,
            warmup_by_epoch=warmup_by_epoch,
        )

    @property
    def base_lr(self) -> ByGroup:
        """Each group's first learning rate; by optimizer where there are several."""
        return by_optimizer(self._base, self._optimizer)

    @property
    def regular_lr(self) -> ByGroup:
        """Each group's learning rate as it is without a warmup."""
        return by_optimizer(self._regular, self._optimizer)

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the learning rate of a group, from its first one and the run's position."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr(runner, base_lr).")

    def get_regular_lr(self, runner: Any) -> list[float]:
        """Return the learning rates without a warmup."""
        return [self.get_lr(runner, base) for base in self._base]

    def get_warmup_lr(self, cur_iters: int) -> list[float]:
        """Return the learning rates at an iteration of the warmup."""
        factor = self._warmup_factor(cur_iters)
        return [rate * factor for rate in self._regular]

    def _value_of(self, group: Mapping[str, Any]) -> GroupValue:
        return _LR

    def _regular_values(self, runner: Any) -> list[float]:
        return self.get_regular_lr(runner)

    def _warmup_values(self, position: int) -> list[float]:
        return self.get_warmup_lr(position)


@MMCV_HOOKS.register_module()
class FixedLrUpdaterHook(LrUpdaterHook):
    """Leaves the learning rate as it is, after the warmup."""

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the first learning rate."""
        return base_lr


@MMCV_HOOKS.register_module()
class StepLrUpdaterHook(LrUpdaterHook):
    """Multiplies the learning rate by ``gamma`` at steps.

    Args:
        step: interval between the steps, or a list of them.
        gamma: the factor.
        min_lr: lower bound; None for none.
        **kwargs: of `LrUpdaterHook`.
    """

    def __init__(
        self, step: int | list[int], gamma: float = 0.1, min_lr: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.step = checked_step(self, step)
        self.gamma = gamma
        self.min_lr = min_lr

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the learning rate after the steps so far."""
        return policies.stepped(base_lr, self._progress(runner), self.step, self.gamma, self.min_lr)


@MMCV_HOOKS.register_module()
class ExpLrUpdaterHook(LrUpdaterHook):
    """Multiplies the learning rate by ``gamma`` at each epoch or iteration."""

    def __init__(self, gamma: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the decayed learning rate."""
        return policies.exponential(base_lr, self._progress(runner), self.gamma)


@MMCV_HOOKS.register_module()
class PolyLrUpdaterHook(LrUpdaterHook):
    """Decays the learning rate to ``min_lr`` at the end of the run, as a ``power`` of what is left of it."""

    def __init__(self, power: float = 1.0, min_lr: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power
        self.min_lr = min_lr

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the decayed learning rate."""
        return policies.polynomial(
            base_lr, self._progress(runner), self._length(runner), self.power, self.min_lr
        )


@MMCV_HOOKS.register_module()
class InvLrUpdaterHook(LrUpdaterHook):
    """Decays the learning rate with the inverse of the position: ``base * (1 + gamma * position) ** -power``."""

    def __init__(self, gamma: float, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma
        self.power = power

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the decayed learning rate."""
        return policies.inverse(base_lr, self._progress(runner), self.gamma, self.power)


def checked_step(hook: UpdaterHook, step: Any) -> int | list[int]:
    """Return an interval, or a list of steps, if they are positive ints."""
    steps = list(step) if isinstance(step, list | tuple) else [step]
    if not steps or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in steps):
        error = TypeError if not isinstance(step, int | list | tuple) else ValueError
        raise error(f"{type(hook).__name__}: step is a positive int or a list of such, not {step!r}.")
    return steps if isinstance(step, list | tuple) else steps[0]
