"""Optimizer constructors: which parameter gets which learning rate and weight decay."""

from asynchooks.optim._constructors._layer_decay import (
    LearningRateDecayOptimizerConstructor,
    LearningRateDecayOptimWrapperConstructor,
)
from asynchooks.optim._constructors._mmcv import DefaultOptimizerConstructor
from asynchooks.optim._constructors._mmengine import DefaultOptimWrapperConstructor
from asynchooks.optim._constructors._yolo import YOLOv5OptimizerConstructor, YOLOv7OptimWrapperConstructor

__all__ = [
    "DefaultOptimWrapperConstructor",
    "DefaultOptimizerConstructor",
    "LearningRateDecayOptimWrapperConstructor",
    "LearningRateDecayOptimizerConstructor",
    "YOLOv5OptimizerConstructor",
    "YOLOv7OptimWrapperConstructor",
]
