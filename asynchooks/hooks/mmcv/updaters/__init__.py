"""The learning rate and momentum policies of MMCV 1.x, and YOLOX's of MMDetection 2, by their names."""

from asynchooks.hooks.mmcv.updaters._lr import (
    ExpLrUpdaterHook,
    FixedLrUpdaterHook,
    InvLrUpdaterHook,
    LrUpdaterHook,
    PolyLrUpdaterHook,
    StepLrUpdaterHook,
)
from asynchooks.hooks.mmcv.updaters._lr_annealing import (
    CosineAnnealingLrUpdaterHook,
    CosineRestartLrUpdaterHook,
    FlatCosineAnnealingLrUpdaterHook,
    LinearAnnealingLrUpdaterHook,
    YOLOXLrUpdaterHook,
)
from asynchooks.hooks.mmcv.updaters._lr_cycles import CyclicLrUpdaterHook, OneCycleLrUpdaterHook
from asynchooks.hooks.mmcv.updaters._momentum import (
    CosineAnnealingMomentumUpdaterHook,
    LinearAnnealingMomentumUpdaterHook,
    MomentumUpdaterHook,
    StepMomentumUpdaterHook,
)
from asynchooks.hooks.mmcv.updaters._momentum_cycles import (
    CyclicMomentumUpdaterHook,
    OneCycleMomentumUpdaterHook,
)

__all__ = [
    "LrUpdaterHook",
    "FixedLrUpdaterHook",
    "StepLrUpdaterHook",
    "ExpLrUpdaterHook",
    "PolyLrUpdaterHook",
    "InvLrUpdaterHook",
    "CosineAnnealingLrUpdaterHook",
    "FlatCosineAnnealingLrUpdaterHook",
    "CosineRestartLrUpdaterHook",
    "CyclicLrUpdaterHook",
    "OneCycleLrUpdaterHook",
    "LinearAnnealingLrUpdaterHook",
    "YOLOXLrUpdaterHook",
    "MomentumUpdaterHook",
    "StepMomentumUpdaterHook",
    "CosineAnnealingMomentumUpdaterHook",
    "LinearAnnealingMomentumUpdaterHook",
    "CyclicMomentumUpdaterHook",
    "OneCycleMomentumUpdaterHook",
]
