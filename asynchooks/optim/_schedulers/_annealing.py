"""Schedules along a cosine, the one-cycle policy, and the one that follows a metric.

Each takes MMEngine's arguments for its class of this name. ``begin``, ``end``, ``last_step``, ``by_epoch`` and
``verbose`` mean what `GroupScheduler` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from asynchooks.errors import ConfigError
from asynchooks.optim._schedulers import _formulas
from asynchooks.optim._schedulers._group_scheduler import FOREVER, GroupScheduler, per_group, range_length
from asynchooks.registry import PARAM_SCHEDULERS

__all__ = [
    "CosineAnnealingParamScheduler",
    "CosineRestartParamScheduler",
    "OneCycleParamScheduler",
    "ReduceOnPlateauParamScheduler",
]


@PARAM_SCHEDULERS.register_module()
class CosineAnnealingParamScheduler(GroupScheduler):
    """Anneals the value along a cosine, in ``T_max`` steps, which are the range's where left out.

    It goes to ``eta_min`` (0), or to ``eta_min_ratio`` times each group's first value; at most one is given.
    """

    counting = ("T_max",)
    needs_length = True
    length_name = "T_max"

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        T_max: int | None = None,  # noqa: N803 - torch's name
        eta_min: float | None = None,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMEngine's signature, here and below
        verbose: bool = False,  # noqa: FBT001, FBT002
        eta_min_ratio: float | None = None,
    ) -> None:
        length = T_max or range_length(begin, end)
        create: Callable[[torch.optim.Optimizer], LRScheduler]
        if eta_min_ratio is None:
            create = partial(lr_scheduler.CosineAnnealingLR, T_max=length, eta_min=eta_min or 0.0)
        elif eta_min is None:
            create = partial(_formulas.CosineToRatio, T_max=length, eta_min_ratio=eta_min_ratio)
        else:
            raise _both_minima(type(self).__name__, eta_min, eta_min_ratio)
        super().__init__(
            optimizer,
            param_name,
            create,
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class CosineRestartParamScheduler(GroupScheduler):
    """Anneals the value along a cosine again and again, in ``periods``; after the last one it stays.

    Each period starts at its ``restart_weights`` times the group's first value and ends at ``eta_min``, or at
    ``eta_min_ratio`` times the first value; exactly one is given.
    """

    counting = ("periods",)

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if (eta_min is None) == (eta_min_ratio is None):
            raise _both_minima(type(self).__name__, eta_min, eta_min_ratio)
        if len(periods) != len(restart_weights) or not all(period > 0 for period in periods):
            raise ConfigError(
                f"{type(self).__name__}: periods are positive and each has its weight; got periods={periods!r}, "
                f"restart_weights={restart_weights!r}."
            )
        super().__init__(
            optimizer,
            param_name,
            partial(
                _formulas.CosineWithRestarts,
                periods=periods,
                restart_weights=restart_weights,
                eta_min=eta_min,
                eta_min_ratio=eta_min_ratio,
            ),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class OneCycleParamScheduler(GroupScheduler):
    """The one-cycle policy: up to ``eta_max``, then down; for the learning rate alone.

    ``total_steps`` is the range's length where left out. The first value becomes ``eta_max / div_factor``, the
    last one that over ``final_div_factor``; ``pct_start`` of the steps go up. Unlike MMEngine's, ``eta_max`` has no
    default: its 0 would train with a learning rate of 0.

    Source: Smith and Topin, https://arxiv.org/abs/1708.07120.
    """

    counting = ("total_steps",)
    needs_length = True
    length_name = "total_steps"

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        eta_max: float | Sequence[float],
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,  # noqa: FBT001, FBT002
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if param_name != "lr":
            raise ConfigError(f"{type(self).__name__} schedules 'lr' alone, not {param_name!r}.")
        peaks = per_group(eta_max, optimizer)
        self._start_at = (peaks, div_factor)
        super().__init__(
            optimizer,
            param_name,
            partial(
                lr_scheduler.OneCycleLR,
                max_lr=peaks,
                total_steps=range_length(begin, end) if total_steps is None else total_steps,
                pct_start=pct_start,
                anneal_strategy=anneal_strategy,
                cycle_momentum=False,
                div_factor=div_factor,
                final_div_factor=final_div_factor,
                three_phase=three_phase,
            ),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )

    def _first_values(self, groups: Sequence[dict[str, Any]]) -> list[float]:
        peaks, div_factor = self._start_at
        if self.last_step == -1:
            for index, group in enumerate(groups):
                peak = peaks[index] if isinstance(peaks, Sequence) else peaks
                group["initial_lr"] = peak / div_factor  # later schedules of this optimizer start from it
        return super()._first_values(groups)


@PARAM_SCHEDULERS.register_module()
class ReduceOnPlateauParamScheduler(GroupScheduler):
    """Multiplies the value by ``factor`` when a metric has not improved for more than ``patience`` validations.

    Args:
        optimizer: a torch optimizer, or a wrapper.
        param_name: key of the value, such as "lr".
        monitor: name of the metric.
        rule: "less" or "greater": what is better.
        factor: below 1.
        patience: validations without improvement that are let pass.
        threshold: change that counts as an improvement.
        threshold_rule: "rel" or "abs": how the threshold is meant.
        cooldown: validations to wait after a reduction.
        min_value: lower bound; one number, or one per parameter group.
        eps: a smaller reduction is not made.
        begin: first epoch, counted by `step` without metrics, at which the metric is looked at.
        end: first epoch at which it no longer is.
        last_step: see `GroupScheduler`.
        by_epoch: True; validations are counted in epochs.
        verbose: whether every change is logged.
    """

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        monitor: str = "loss",
        rule: Literal["less", "greater"] = "less",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_rule: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_value: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if not by_epoch:
            raise ConfigError(f"{type(self).__name__} counts epochs: by_epoch=True.")
        if rule not in _MODES or threshold < 0:
            raise ConfigError(
                f"{type(self).__name__}: rule is 'less' or 'greater' and threshold is not negative; got "
                f"rule={rule!r}, threshold={threshold!r}."
            )
        super().__init__(
            optimizer,
            param_name,
            partial(
                lr_scheduler.ReduceLROnPlateau,
                mode=_MODES[rule],
                factor=factor,
                patience=patience,
                threshold=threshold,
                threshold_mode=threshold_rule,
                cooldown=cooldown,
                min_lr=per_group(min_value, optimizer),
                eps=eps,
            ),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
            monitor=monitor,
        )

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG003 - its base's signature
        """Refuse: validations are counted in epochs."""
        raise ConfigError(f"{cls.__name__} counts epochs; convert_to_iter_based does not go with it.")

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Count an epoch; or, with a validation's metrics, look at the one that is followed."""
        if metrics is None:
            self._global_step += 1
        elif not isinstance(metrics, Mapping):
            raise TypeError(f"{type(self).__name__}.step takes the metrics of a validation, not {metrics!r}.")
        elif self.begin <= self._global_step < self.end:
            self._follow(metrics)
            self.last_step += 1

    def count_epoch(self) -> None:
        """Count an epoch, after which a validation may follow."""
        self.step()


_MODES: dict[str, Literal["min", "max"]] = {"less": "min", "greater": "max"}


def _both_minima(name: str, eta_min: float | None, eta_min_ratio: float | None) -> ConfigError:
    return ConfigError(
        f"{name} goes down to eta_min or to eta_min_ratio, one of them; got eta_min={eta_min!r}, "
        f"eta_min_ratio={eta_min_ratio!r}."
    )
