"""Learning rate policies in cycles: several, or one over the whole run."""

from __future__ import annotations

from numbers import Real
from typing import Any

from asynchooks.hooks.mmcv.updaters._lr import LrUpdaterHook
from asynchooks.hooks.mmcv.updaters._updater import check_cycle, groups_of, per_group
from asynchooks.optim import policies
from asynchooks.registry import MMCV_HOOKS

__all__ = ["CyclicLrUpdaterHook", "OneCycleLrUpdaterHook"]


@MMCV_HOOKS.register_module()
class CyclicLrUpdaterHook(LrUpdaterHook):
    """Takes the learning rate up and down in cycles, by iteration.

    Args:
        by_epoch: False.
        target_ratio: highest and last learning rate of a cycle, as ratios of the first one.
        cyclic_times: cycles in the run.
        step_ratio_up: part of a cycle that goes up, in [0, 1).
        anneal_strategy: "cos" or "linear".
        gamma: what the height is multiplied by from cycle to cycle, in (0, 1].
        **kwargs: of `LrUpdaterHook`.
    """

    def __init__(
        self,
        by_epoch: bool = False,  # noqa: FBT001, FBT002 - MMCV's signature
        target_ratio: float | tuple[float, ...] = (10, 1e-4),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1,
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

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the learning rate in its cycle."""
        length = self._length(runner) // self.cyclic_times
        self._require(length, f"a run of {runner.max_iters} iterations has no {self.cyclic_times} cycles")
        up = int(self.step_ratio_up * length)
        return policies.cyclic(
            base_lr, runner.iter, length, up, self.target_ratio, self.gamma, self.anneal_func
        )


@MMCV_HOOKS.register_module()
class OneCycleLrUpdaterHook(LrUpdaterHook):
    """The one-cycle policy, by iteration: up to ``max_lr``, then far down.

    Source: Smith and Topin, https://arxiv.org/abs/1708.07120.

    Args:
        max_lr: highest learning rate: one, one per parameter group, or a dict of such by optimizer.
        total_steps: length of the cycle, at least the run's; the run's where left out.
        pct_start: part of the cycle that goes up.
        anneal_strategy: "cos" or "linear".
        div_factor: the first learning rate is ``max_lr`` over this.
        final_div_factor: the last one is the first one over this.
        three_phase: whether the way down to the first learning rate mirrors the way up.
        **kwargs: of `LrUpdaterHook`; ``by_epoch`` is False.
    """

    def __init__(
        self,
        max_lr: Any,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25,
        final_div_factor: float = 1e4,
        three_phase: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"by_epoch": False, **kwargs})
        self._require(not self.by_epoch, "the cycle counts iterations: by_epoch=False")
        self._require(
            isinstance(max_lr, Real | list | tuple | dict),
            f"max_lr is a number, one per parameter group, or a dict of such, not {max_lr!r}",
        )
        self._require(
            total_steps is None or (isinstance(total_steps, int) and total_steps > 0),
            f"total_steps is a positive int or None, not {total_steps!r}",
        )
        self._require(0 <= pct_start <= 1, f"pct_start is in [0, 1], not {pct_start!r}")
        self.max_lr = max_lr
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.anneal_func = policies.annealing(anneal_strategy)
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.three_phase = three_phase
        self._phases: list[tuple[float, float, float]] = []

    def before_run(self, runner: Any) -> None:
        """Set up the cycle; the first learning rates are the policy's, not the optimizer's."""
        total, length = self.total_steps or self._length(runner), self._length(runner)
        self._require(total >= length, f"total_steps={total} is less than the {length} iterations of the run")
        self._phases = self._make_phases(total)
        peaks = per_group(self, "max_lr", self.max_lr, runner.optimizer)
        self._base = [peak / self.div_factor for peak in peaks]
        self._regular = []
        self._optimizer = runner.optimizer
        for group, rate in zip(groups_of(runner.optimizer), self._base, strict=True):
            group.setdefault("initial_lr", rate)

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the learning rate in its phase."""
        phases = [(end, base_lr * first, base_lr * last) for end, first, last in self._phases]
        return policies.piecewise(runner.iter, phases, self.anneal_func)

    def _make_phases(self, total: int) -> list[tuple[float, float, float]]:
        up, low = self.div_factor, 1 / self.final_div_factor
        if self.three_phase:
            return [
                (self.pct_start * total - 1, 1, up),
                (2 * self.pct_start * total - 2, up, 1),
                (total - 1, 1, low),
            ]
        return [(self.pct_start * total - 1, 1, up), (total - 1, up, low)]
