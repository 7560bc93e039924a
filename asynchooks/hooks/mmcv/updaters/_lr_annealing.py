"""Learning rate policies that anneal: along a cosine, in one or several periods, or along a line; and YOLOX's."""

from __future__ import annotations

from typing import Any

from asynchooks.hooks.mmcv.updaters._lr import LrUpdaterHook
from asynchooks.hooks.mmcv.updaters._updater import Target
from asynchooks.optim import policies
from asynchooks.registry import MMCV_HOOKS

__all__ = [
    "CosineAnnealingLrUpdaterHook",
    "CosineRestartLrUpdaterHook",
    "FlatCosineAnnealingLrUpdaterHook",
    "LinearAnnealingLrUpdaterHook",
    "YOLOXLrUpdaterHook",
]


class _AnnealingLrUpdaterHook(LrUpdaterHook):
    def __init__(self, min_lr: float | None = None, min_lr_ratio: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._target = Target(self, "lr", min_lr, min_lr_ratio)
        self.min_lr = min_lr
        self.min_lr_ratio = min_lr_ratio


@MMCV_HOOKS.register_module()
class CosineAnnealingLrUpdaterHook(_AnnealingLrUpdaterHook):
    """Anneals the learning rate along a cosine to ``min_lr`` or ``min_lr_ratio`` times the first one."""

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the annealed learning rate."""
        factor = self._progress(runner) / self._length(runner)
        return policies.annealing_cos(base_lr, self._target.of(base_lr), factor)


@MMCV_HOOKS.register_module()
class LinearAnnealingLrUpdaterHook(_AnnealingLrUpdaterHook):
    """Anneals the learning rate along a line to ``min_lr`` or ``min_lr_ratio`` times the first one."""

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the annealed learning rate."""
        factor = self._progress(runner) / self._length(runner)
        return policies.annealing_linear(base_lr, self._target.of(base_lr), factor)


@MMCV_HOOKS.register_module()
class FlatCosineAnnealingLrUpdaterHook(_AnnealingLrUpdaterHook):
    """Keeps the learning rate for ``start_percent`` of the run, then anneals it along a cosine.

    Args:
        start_percent: part of the run, in [0, 1].
        min_lr: learning rate at the end.
        min_lr_ratio: the same as a ratio of the first one.
        **kwargs: of `LrUpdaterHook`.
    """

    def __init__(
        self,
        start_percent: float = 0.75,
        min_lr: float | None = None,
        min_lr_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_lr, min_lr_ratio, **kwargs)
        self._require(0 <= start_percent <= 1, f"start_percent is in [0, 1], not {start_percent!r}")
        self.start_percent = start_percent

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the annealed learning rate."""
        return policies.flat_cosine(
            base_lr,
            self._target.of(base_lr),
            self._progress(runner),
            self._length(runner),
            self.start_percent,
        )


@MMCV_HOOKS.register_module()
class CosineRestartLrUpdaterHook(_AnnealingLrUpdaterHook):
    """Anneals the learning rate along a cosine in each of several periods.

    Args:
        periods: lengths of the periods; a run that is longer than all of them is refused when it starts.
        restart_weights: what the first learning rate is multiplied by at the start of each.
        min_lr: learning rate at the end of each.
        min_lr_ratio: the same as a ratio of the first one.
        **kwargs: of `LrUpdaterHook`.
    """

    def __init__(
        self,
        periods: list[int],
        restart_weights: list[float] | tuple[float, ...] = (1,),
        min_lr: float | None = None,
        min_lr_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_lr, min_lr_ratio, **kwargs)
        self._require(
            len(periods) == len(restart_weights) and all(period > 0 for period in periods),
            f"periods are positive and each has its weight; got periods={periods!r}, "
            f"restart_weights={restart_weights!r}",
        )
        self.periods = list(periods)
        self.restart_weights = list(restart_weights)

    def before_run(self, runner: Any) -> None:
        """Note the first learning rates."""
        super().before_run(runner)
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        self._require(
            length is None or length <= sum(self.periods),
            f"the periods {self.periods} end at {sum(self.periods)}, but the run has {length} "
            f"{'epochs' if self.by_epoch else 'iterations'}",
        )

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the annealed learning rate."""
        return policies.cosine_restart(
            base_lr,
            self._target.of(base_lr),
            self._progress(runner),
            self.periods,
            self.restart_weights,
        )


@MMCV_HOOKS.register_module()
class YOLOXLrUpdaterHook(_AnnealingLrUpdaterHook):
    """YOLOX's: a quadratic warmup, a cosine, and the lowest learning rate in the last epochs.

    Unlike MMDetection's, it counts in epochs throughout where ``by_epoch`` is set.

    Args:
        num_last_epochs: epochs at the end with the lowest learning rate.
        min_lr: that learning rate.
        min_lr_ratio: the same as a ratio of the first one.
        **kwargs: of `LrUpdaterHook`; ``warmup`` says only whether there is one.
    """

    def __init__(
        self,
        num_last_epochs: int,
        min_lr: float | None = None,
        min_lr_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_lr, min_lr_ratio, **kwargs)
        self._require(num_last_epochs >= 0, f"num_last_epochs is not negative, but {num_last_epochs!r}")
        self.num_last_epochs = num_last_epochs

    def get_lr(self, runner: Any, base_lr: float) -> float:
        """Return the learning rate after the warmup."""
        per_epoch = len(runner.data_loader)
        last, warmup = float(self.num_last_epochs * per_epoch), float(self._know_warmup(runner))
        if self.by_epoch:
            last, warmup = last / per_epoch, warmup / per_epoch
        position, length = self._progress(runner) + 1, self._length(runner)
        target = self._target.of(base_lr)
        if position >= length - last or length - last <= warmup:
            return target if position >= length - last else base_lr
        return policies.annealing_cos(base_lr, target, (position - warmup) / (length - warmup - last))

    def get_warmup_lr(self, cur_iters: int) -> list[float]:
        """Return the learning rates at an iteration of the warmup, from the first ones."""
        factor = policies.quadratic_factor(self.warmup_ratio, cur_iters, self.warmup_iters or 1)
        return [base * factor for base in self._base]
