"""The optimizer's step as a hook: backward, clipping, accumulation, mixed precision."""

from asynchooks.hooks.mmcv.optimizer._cumulative import GradientCumulativeOptimizerHook
from asynchooks.hooks.mmcv.optimizer._fp16 import Fp16OptimizerHook, GradientCumulativeFp16OptimizerHook
from asynchooks.hooks.mmcv.optimizer._hook import OptimizerHook

__all__ = [
    "OptimizerHook",
    "GradientCumulativeOptimizerHook",
    "Fp16OptimizerHook",
    "GradientCumulativeFp16OptimizerHook",
]
