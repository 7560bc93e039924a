"""Momentum updaters: what they share, and the policies by steps and annealing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynchooks.hooks.mmcv.updaters._lr import checked_step
from asynchooks.hooks.mmcv.updaters._updater import ByGroup, Target, UpdaterHook, by_optimizer
from asynchooks.optim import GroupValue, policies
from asynchooks.registry import MMCV_HOOKS

__all__ = [
    "CosineAnnealingMomentumUpdaterHook",
    "LinearAnnealingMomentumUpdaterHook",
    "MomentumUpdaterHook",
    "StepMomentumUpdaterHook",
]

_MOMENTUM = GroupValue("momentum")
_FIRST_BETA = GroupValue("momentum", in_betas=True)


class MomentumUpdaterHook(UpdaterHook):
    """Sets the momentum of every parameter group, or its first beta; the base of a policy: `get_momentum`.

    A policy ``P`` is ``PMomentumUpdaterHook`` and is configured by ``momentum_config=dict(policy="P", ...)``.

    Args:
        by_epoch: whether the momentum changes from epoch to epoch, or from iteration to iteration.
        warmup: None, "constant", "linear" or "exp".
        warmup_iters: how long the warmup lasts, in iterations.
        warmup_ratio: what the regular momentum is divided by when the warmup starts.
        warmup_by_epoch: whether ``warmup_iters`` counts epochs.
    """

    priority = "HIGH"

    def __init__(
        self,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's signature
        warmup: str | None = None,
        warmup_iters: int = 0,
        warmup_ratio: float = 0.9,
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
    def base_momentum(self) -> ByGroup:
        """Each group's first momentum; by optimizer where there are several."""
        return by_optimizer(self._base, self._optimizer)

    @property
    def regular_momentum(self) -> ByGroup:
        """Each group's momentum as it is without a warmup."""
        return by_optimizer(self._regular, self._optimizer)

    def get_momentum(self, runner: Any, base_momentum: float) -> float:
        """Return the momentum of a group, from its first one and the run's position."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_momentum(runner, base_momentum).")

    def get_regular_momentum(self, runner: Any) -> list[float]:
        """Return the momenta without a warmup."""
        return [self.get_momentum(runner, base) for base in self._base]

    def get_warmup_momentum(self, cur_iters: int) -> list[float]:
        """Return the momenta at an iteration of the warmup: the regular ones, divided."""
        factor = self._warmup_factor(cur_iters)
        return [momentum / factor for momentum in self._regular]

    def _value_of(self, group: Mapping[str, Any]) -> GroupValue:
        return _MOMENTUM if "momentum" in group else _FIRST_BETA

    def _regular_values(self, runner: Any) -> list[float]:
        return self.get_regular_momentum(runner)

    def _warmup_values(self, position: int) -> list[float]:
        return self.get_warmup_momentum(position)


@MMCV_HOOKS.register_module()
class StepMomentumUpdaterHook(MomentumUpdaterHook):
    """Multiplies the momentum by ``gamma`` at steps.

    Args:
        step: interval between the steps, or a list of them.
        gamma: the factor.
        min_momentum: lower bound; None for none.
        **kwargs: of `MomentumUpdaterHook`.
    """

    def __init__(
        self, step: int | list[int], gamma: float = 0.5, min_momentum: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.step = checked_step(self, step)
        self.gamma = gamma
        self.min_momentum = min_momentum

    def get_momentum(self, runner: Any, base_momentum: float) -> float:
        """Return the momentum after the steps so far."""
        return policies.stepped(
            base_momentum, self._progress(runner), self.step, self.gamma, self.min_momentum
        )


class _AnnealingMomentumUpdaterHook(MomentumUpdaterHook):
    def __init__(
        self, min_momentum: float | None = None, min_momentum_ratio: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._target = Target(self, "momentum", min_momentum, min_momentum_ratio)
        self.min_momentum = min_momentum
        self.min_momentum_ratio = min_momentum_ratio


@MMCV_HOOKS.register_module()
class CosineAnnealingMomentumUpdaterHook(_AnnealingMomentumUpdaterHook):
    """Anneals the momentum along a cosine to ``min_momentum`` or ``min_momentum_ratio`` times the first one."""

    def get_momentum(self, runner: Any, base_momentum: float) -> float:
        """Return the annealed momentum."""
        factor = self._progress(runner) / self._length(runner)
        return policies.annealing_cos(base_momentum, self._target.of(base_momentum), factor)


@MMCV_HOOKS.register_module()
class LinearAnnealingMomentumUpdaterHook(_AnnealingMomentumUpdaterHook):
    """Anneals the momentum along a line to ``min_momentum`` or ``min_momentum_ratio`` times the first one."""

    def get_momentum(self, runner: Any, base_momentum: float) -> float:
        """Return the annealed momentum."""
        factor = self._progress(runner) / self._length(runner)
        return policies.annealing_linear(base_momentum, self._target.of(base_momentum), factor)
