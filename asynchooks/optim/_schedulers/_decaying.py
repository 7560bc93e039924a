"""Schedules by steps, factors and powers: step, multi-step, constant, exponential, linear, polynomial, quadratic.

Each takes MMEngine's arguments for its class of this name. ``begin``, ``end``, ``last_step``, ``by_epoch`` and
``verbose`` mean what `GroupScheduler` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import lr_scheduler

from asynchooks.errors import ConfigError
from asynchooks.optim._schedulers import _formulas
from asynchooks.optim._schedulers._group_scheduler import FOREVER, GroupScheduler, range_length
from asynchooks.registry import PARAM_SCHEDULERS

__all__ = [
    "ConstantParamScheduler",
    "ExponentialParamScheduler",
    "LinearParamScheduler",
    "MultiStepParamScheduler",
    "PolyParamScheduler",
    "QuadraticWarmupParamScheduler",
    "StepParamScheduler",
]


@PARAM_SCHEDULERS.register_module()
class StepParamScheduler(GroupScheduler):
    """Multiplies the value by ``gamma`` every ``step_size`` steps."""

    counting = ("step_size",)

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        step_size: int,
        gamma: float = 0.1,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMEngine's signature, here and below
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if isinstance(step_size, bool) or not isinstance(step_size, int | float) or step_size <= 0:
            raise ConfigError(f"{type(self).__name__}: step_size is a positive int, not {step_size!r}.")
        super().__init__(
            optimizer,
            param_name,
            partial(lr_scheduler.StepLR, step_size=step_size, gamma=gamma),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class MultiStepParamScheduler(GroupScheduler):
    """Multiplies the value by ``gamma`` at each of the ``milestones``; one that is named twice counts twice."""

    counting = ("milestones",)

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_step: int = -1,
        begin: float = 0,
        end: float = FOREVER,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if not isinstance(milestones, Sequence) or not all(isinstance(m, int | float) for m in milestones):
            raise ConfigError(f"{type(self).__name__}: milestones is a list of ints, not {milestones!r}.")
        super().__init__(
            optimizer,
            param_name,
            partial(lr_scheduler.MultiStepLR, milestones=milestones, gamma=gamma),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class ConstantParamScheduler(GroupScheduler):
    """Multiplies the value by ``factor``, and divides by it again on the last step of the range."""

    needs_length = True

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        factor: float = 1.0 / 3,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if factor == 0 and end < FOREVER:
            raise ConfigError(
                f"{type(self).__name__}: from factor=0 there is no way back at end={end}; use a small factor."
            )
        total = range_length(begin, end) - 1
        super().__init__(
            optimizer,
            param_name,
            partial(lr_scheduler.ConstantLR, factor=factor, total_iters=total),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class ExponentialParamScheduler(GroupScheduler):
    """Multiplies the value by ``gamma`` on every step."""

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        gamma: float,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(
            optimizer,
            param_name,
            partial(lr_scheduler.ExponentialLR, gamma=gamma),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class LinearParamScheduler(GroupScheduler):
    """Multiplies the value by a factor that goes from ``start_factor`` to ``end_factor`` over the range."""

    needs_length = True

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        total = range_length(begin, end) - 1
        super().__init__(
            optimizer,
            param_name,
            partial(
                lr_scheduler.LinearLR, start_factor=start_factor, end_factor=end_factor, total_iters=total
            ),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class PolyParamScheduler(GroupScheduler):
    """Decays the value polynomially to ``eta_min`` at the end of the range."""

    needs_length = True

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        eta_min: float = 0,
        power: float = 1.0,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        total = range_length(begin, end) - 1
        super().__init__(
            optimizer,
            param_name,
            partial(_formulas.PolynomialTo, total_iters=total, power=power, eta_min=eta_min),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )


@PARAM_SCHEDULERS.register_module()
class QuadraticWarmupParamScheduler(GroupScheduler):
    """Warms the value up from near nothing to its first value, with the square of the step; MMDetection's."""

    needs_length = True

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        begin: float = 0,
        end: float = FOREVER,
        last_step: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        verbose: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if end >= FOREVER:
            raise ConfigError(f"{type(self).__name__} needs the end of the warmup: end=<a step>.")
        super().__init__(
            optimizer,
            param_name,
            partial(_formulas.QuadraticWarmup, total_iters=range_length(begin, end)),
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )
