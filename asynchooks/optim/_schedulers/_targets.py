"""The families for the learning rate and for the momentum: the same schedules with the value's name left out."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from asynchooks.optim._group_value import GroupValue, momentum_of
from asynchooks.optim._schedulers import _annealing, _decaying
from asynchooks.registry import PARAM_SCHEDULERS

__all__ = [
    "ConstantLR",
    "ConstantMomentum",
    "CosineAnnealingLR",
    "CosineAnnealingMomentum",
    "CosineRestartLR",
    "CosineRestartMomentum",
    "ExponentialLR",
    "ExponentialMomentum",
    "LinearLR",
    "LinearMomentum",
    "MultiStepLR",
    "MultiStepMomentum",
    "OneCycleLR",
    "PolyLR",
    "PolyMomentum",
    "QuadraticWarmupLR",
    "QuadraticWarmupMomentum",
    "ReduceOnPlateauLR",
    "ReduceOnPlateauMomentum",
    "StepLR",
    "StepMomentum",
]


class _OfOneValue:
    """Gives a family its ``param_name``, takes that out of the signature, and registers the class."""

    value_name = ""

    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Take the family's arguments, without ``param_name``; each class below has its own signature."""

    def __init_subclass__(cls) -> None:
        if len(cls.__bases__) < 2:
            return
        family = cls.__bases__[1]
        signature = inspect.signature(family.__init__)  # type: ignore[misc]
        parameters = [p for name, p in signature.parameters.items() if name != "param_name"]

        @functools.wraps(_OfOneValue.__init__)
        def initialize(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            family.__init__(self, optimizer, cls.value_name, *args, **kwargs)  # type: ignore[misc]

        initialize.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        cls.__init__ = initialize  # type: ignore[method-assign]
        PARAM_SCHEDULERS.register_module(module=cls)


class _OfLR(_OfOneValue):
    value_name = "lr"


class _OfMomentum(_OfOneValue):
    """Of ``momentum``, or the first of ``betas`` where an optimizer has these."""

    value_name = "momentum"

    def _locate(self, optimizer: Any) -> GroupValue:
        return momentum_of(optimizer)


class ConstantLR(_OfLR, _decaying.ConstantParamScheduler):
    """`ConstantParamScheduler` of the learning rate."""


class ConstantMomentum(_OfMomentum, _decaying.ConstantParamScheduler):
    """`ConstantParamScheduler` of the momentum."""


class CosineAnnealingLR(_OfLR, _annealing.CosineAnnealingParamScheduler):
    """`CosineAnnealingParamScheduler` of the learning rate."""


class CosineAnnealingMomentum(_OfMomentum, _annealing.CosineAnnealingParamScheduler):
    """`CosineAnnealingParamScheduler` of the momentum."""


class CosineRestartLR(_OfLR, _annealing.CosineRestartParamScheduler):
    """`CosineRestartParamScheduler` of the learning rate."""


class CosineRestartMomentum(_OfMomentum, _annealing.CosineRestartParamScheduler):
    """`CosineRestartParamScheduler` of the momentum."""


class ExponentialLR(_OfLR, _decaying.ExponentialParamScheduler):
    """`ExponentialParamScheduler` of the learning rate."""


class ExponentialMomentum(_OfMomentum, _decaying.ExponentialParamScheduler):
    """`ExponentialParamScheduler` of the momentum."""


class LinearLR(_OfLR, _decaying.LinearParamScheduler):
    """`LinearParamScheduler` of the learning rate."""


class LinearMomentum(_OfMomentum, _decaying.LinearParamScheduler):
    """`LinearParamScheduler` of the momentum."""


class MultiStepLR(_OfLR, _decaying.MultiStepParamScheduler):
    """`MultiStepParamScheduler` of the learning rate."""


class MultiStepMomentum(_OfMomentum, _decaying.MultiStepParamScheduler):
    """`MultiStepParamScheduler` of the momentum."""


class OneCycleLR(_OfLR, _annealing.OneCycleParamScheduler):
    """`OneCycleParamScheduler` of the learning rate."""


class PolyLR(_OfLR, _decaying.PolyParamScheduler):
    """`PolyParamScheduler` of the learning rate."""


class PolyMomentum(_OfMomentum, _decaying.PolyParamScheduler):
    """`PolyParamScheduler` of the momentum."""


class QuadraticWarmupLR(_OfLR, _decaying.QuadraticWarmupParamScheduler):
    """`QuadraticWarmupParamScheduler` of the learning rate."""


class QuadraticWarmupMomentum(_OfMomentum, _decaying.QuadraticWarmupParamScheduler):
    """`QuadraticWarmupParamScheduler` of the momentum."""


class ReduceOnPlateauLR(_OfLR, _annealing.ReduceOnPlateauParamScheduler):
    """`ReduceOnPlateauParamScheduler` of the learning rate."""


class ReduceOnPlateauMomentum(_OfMomentum, _annealing.ReduceOnPlateauParamScheduler):
    """`ReduceOnPlateauParamScheduler` of the momentum."""


class StepLR(_OfLR, _decaying.StepParamScheduler):
    """`StepParamScheduler` of the learning rate."""


class StepMomentum(_OfMomentum, _decaying.StepParamScheduler):
    """`StepParamScheduler` of the momentum."""
