"""MMDetection 2's averages of weights, which the model carries as buffers; for its runners and for `Runner`.

Decides the momentum of each iteration. What is averaged, and when the average serves, is `asynchooks.optim`'s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import ShadowPoints, linear_momentum
from asynchooks.optim._checks import checked_count, checked_fraction
from asynchooks.registry import HOOKS

__all__ = ["BaseEMAHook", "ExpMomentumEMAHook", "LinearMomentumEMAHook"]


class BaseEMAHook(ShadowPoints, Hook):
    """Averages weights and buffers; evaluations and saved weights are the average's, training's never.

    The average is in buffers ``ema_<name>`` of the model; where it serves, and in saved ``state_dict``, average and
    weights have changed places. Unlike MMDetection's: it serves evaluations and saves in loops that count
    iterations too; a run that is resumed by any way takes it up; tied weights are exchanged once; buffers of
    integers are copied.

    Args:
        momentum: weight of the new value, between 0 and 1.
        interval: iterations from one update to the next.
        skip_buffers: whether buffers are left out.
        resume_from: checkpoint that the run continues from.
        momentum_fun: returns the momentum of an iteration, counted from 0, in place of ``momentum``.
    """

    priority = "NORMAL"
    effects = Effects()

    def __init__(
        self,
        momentum: float = 0.0002,
        interval: int = 1,
        skip_buffers: bool = False,  # noqa: FBT001, FBT002 - MMDetection's signature
        resume_from: str | os.PathLike[str] | None = None,
        momentum_fun: Callable[[int], float] | None = None,
    ) -> None:
        name = type(self).__name__
        if momentum_fun is not None and not callable(momentum_fun):
            raise ConfigError(f"{name}: momentum_fun is a function of the iteration, not {momentum_fun!r}.")
        if not isinstance(skip_buffers, bool):
            raise ConfigError(f"{name}: skip_buffers is True or False, not {skip_buffers!r}.")
        self.momentum = checked_fraction(name, "momentum", momentum)
        self.interval = checked_count(name, "interval", interval, least=1)
        self.skip_buffers = skip_buffers
        self.checkpoint = resume_from
        self.momentum_fun = momentum_fun

    def get_momentum(self, runner: Any) -> float:
        """Return the weight of the new value in this iteration."""
        return self.momentum if self.momentum_fun is None else self.momentum_fun(runner.iter)

    def _is_due(self, runner: Any) -> bool:
        return self.every_n_train_iters(runner, self.interval)


@HOOKS.register_module()
class ExpMomentumEMAHook(BaseEMAHook):
    """Averages with ``(1 - momentum) * exp(-(1 + iter) / total_iter) + momentum``.

    Args:
        total_iter: how slowly the momentum falls to ``momentum``, in iterations.
        momentum, interval, skip_buffers, resume_from: see `BaseEMAHook`.
    """

    def __init__(
        self,
        total_iter: int = 2000,
        momentum: float = 0.0002,
        interval: int = 1,
        skip_buffers: bool = False,  # noqa: FBT001, FBT002
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(momentum, interval, skip_buffers, resume_from)
        self.total_iter = checked_count(type(self).__name__, "total_iter", total_iter, least=1)

    def get_momentum(self, runner: Any) -> float:
        """Return the weight of the new value in this iteration."""
        return (1 - self.momentum) * math.exp(-(1 + runner.iter) / self.total_iter) + self.momentum


@HOOKS.register_module()
class LinearMomentumEMAHook(BaseEMAHook):
    """Averages with ``min(momentum ** interval, (1 + iter) / (warm_up + iter))``.

    Args:
        warm_up: with larger values the average starts slower.
        momentum, interval, skip_buffers, resume_from: see `BaseEMAHook`.
    """

    def __init__(
        self,
        warm_up: int = 100,
        momentum: float = 0.0002,
        interval: int = 1,
        skip_buffers: bool = False,  # noqa: FBT001, FBT002
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(momentum, interval, skip_buffers, resume_from)
        self.warm_up = checked_count(type(self).__name__, "warm_up", warm_up, least=0)

    def get_momentum(self, runner: Any) -> float:
        """Return the weight of the new value in this iteration."""
        return linear_momentum(self.momentum, self.interval, self.warm_up, runner.iter)
