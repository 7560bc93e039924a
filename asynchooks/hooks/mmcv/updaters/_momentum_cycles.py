"""Momentum policies in cycles, which go with the learning rate's of the same names."""

from __future__ import annotations

from numbers import Real
from typing import Any

from asynchooks.hooks.mmcv.updaters._momentum import MomentumUpdaterHook
from asynchooks.hooks.mmcv.updaters._updater import check_cycle, per_group
from asynchooks.optim import policies
from asynchooks.registry import MMCV_HOOKS

__all__ = ["CyclicMomentumUpdaterHook", "OneCycleMomentumUpdaterHook"]


@MMCV_HOOKS.register_module()
class CyclicMomentumUpdaterHook(MomentumUpdaterHook):
    """Takes the momentum down and up in cycles, by iteration.

    Args:
        by_epoch: False.
        target_ratio: lowest and last momentum of a cycle, as ratios of the first one.
        cyclic_times: cycles in the run.
        step_ratio_up: part of a cycle in which the learning rate goes up, in [0, 1).
        anneal_strategy: "cos" or "linear".
        gamma: what the depth is multiplied by from cycle to cycle, in (0, 1].
        **kwargs: of `MomentumUpdaterHook`.
    """

    def __init__(
        self,
        by_epoch: bool = False,  # noqa: FBT001, FBT002 - MMCV's signature
        target_ratio: float | tuple[float, ...] = (0.85 / 0.95, 1.0),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(by_epoch, **kwargs)
        self.target_ratio = check_cycle(
            self, target_ratio, cyclic_times, step_ratio_up, gamma, by_epoch=by_epoch
        )
        self.cyclic_times = cyclic_times
        self.step_ratio_up = step_ratio_up
        self.gamma = gamma
        self.anneal_func = policies.annealing(anneal_strategy)

    def get_momentum(self, runner: Any, base_momentum: float) -> float:
        """Return the momentum in its cycle."""
        length = self._length(runner) // self.cyclic_times
        self._require(length, f"a run of {runner.max_iters} iterations has no {self.cyclic_times} cycles")
        up = int(self.step_ratio_up * length)
        return policies.cyclic(
            base_momentum, runner.iter, length, up, self.target_ratio, self.gamma, self.anneal_func
        )


@MMCV_HOOKS.register_module()
class OneCycleMomentumUpdaterHook(MomentumUpdaterHook):
    """The one-cycle policy's momentum, by iteration: down while the learning rate goes up, then up again.

    Args:
        base_momentum: lowest momentum: one, one per parameter group, or a dict of such by optimizer.
        max_momentum: highest momentum, likewise; the run starts with it.
        pct_start: part of the run that goes down.
        anneal_strategy: "cos" or "linear".
        three_phase: whether the way up mirrors the way down, and the highest momentum follows.
        **kwargs: of `MomentumUpdaterHook`; ``by_epoch`` is False.
    """

    def __init__(
        self,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"by_epoch": False, **kwargs})
        self._require(not self.by_epoch, "the cycle counts iterations: by_epoch=False")
        for name, value in (("base_momentum", base_momentum), ("max_momentum", max_momentum)):
            self._require(
                isinstance(value, Real | list | tuple | dict),
                f"{name} is a number, one per parameter group, or a dict of such, not {value!r}",
            )
        self._require(0 <= pct_start <= 1, f"pct_start is in [0, 1], not {pct_start!r}")
        self._lowest = base_momentum
        self._highest = max_momentum
        self.pct_start = pct_start
        self.anneal_func = policies.annealing(anneal_strategy)
        self.three_phase = three_phase
        self._bounds: list[tuple[float, float]] = []

    def before_run(self, runner: Any) -> None:
        """Set the highest momentum, with which the run starts."""
        super().before_run(runner)
        low = per_group(self, "base_momentum", self._lowest, runner.optimizer)
        high = per_group(self, "max_momentum", self._highest, runner.optimizer)
        self._bounds = list(zip(low, high, strict=True))
        self._base = high
        self._apply(runner, high)

    def get_regular_momentum(self, runner: Any) -> list[float]:
        """Return the momenta in their phase."""
        total = self._length(runner)
        return [self._at(runner.iter, total, *bounds) for bounds in self._bounds]

    def _at(self, position: int, total: int, low: float, high: float) -> float:
        down = (self.pct_start * total - 1, high, low)
        if self.three_phase:
            up = (2 * self.pct_start * total - 2, low, high)
            phases = [down, up, (total - 1, high, high)]
        else:
            phases = [down, (total - 1, low, high)]
        return policies.piecewise(position, phases, self.anneal_func)
