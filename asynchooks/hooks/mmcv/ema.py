"""MMCV 1.x's average of weights, which the model carries as buffers."""

from __future__ import annotations

import os
from typing import Any

from asynchooks.execution import Effects, Hook
from asynchooks.optim import ShadowPoints, linear_momentum
from asynchooks.optim._checks import checked_count, checked_fraction
from asynchooks.registry import MMCV_HOOKS

__all__ = ["EMAHook"]


@MMCV_HOOKS.register_module()
class EMAHook(ShadowPoints, Hook):
    """Averages the parameters; evaluations and saved weights are the average's, training's never.

    The average is in buffers ``ema_<name>`` of the model; where it serves, and in saved ``state_dict``, average and
    weights have changed places. Kept of MMCV's: the momentum is ``momentum ** interval``, and updates are in the
    iterations 0, ``interval``, ... Unlike MMCV's: it serves evaluations and saves in `IterBasedRunner` too;
    saves hold the average whatever the order of the hooks; ``warm_up=0`` works; tied weights are exchanged once.

    Args:
        momentum: weight of the new value, between 0 and 1; see above.
        interval: iterations from one update to the next.
        warm_up: the momentum is at most ``(1 + iter) / (warm_up + iter)``.
        resume_from: checkpoint that the run continues from.
    """

    priority = "NORMAL"
    effects = Effects()
    skip_buffers = True

    def __init__(
        self,
        momentum: float = 0.0002,
        interval: int = 1,
        warm_up: int = 100,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        name = type(self).__name__
        self.interval = checked_count(name, "interval", interval, least=1)
        self.warm_up = checked_count(name, "warm_up", warm_up, least=0)
        self._momentum = checked_fraction(name, "momentum", momentum)
        self.momentum: float = momentum**interval
        self.checkpoint = resume_from

    def get_momentum(self, runner: Any) -> float:
        """Return the weight of the new value in this iteration."""
        return linear_momentum(self._momentum, self.interval, self.warm_up, runner.iter)

    def _is_due(self, runner: Any) -> bool:
        return bool(runner.iter % self.interval == 0)
