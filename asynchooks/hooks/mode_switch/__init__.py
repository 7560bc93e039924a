"""Hooks that change a data set's transforms in the middle of a training."""

from asynchooks.hooks.mode_switch._pipeline import PipelineSwitchHook
from asynchooks.hooks.mode_switch._yolox import YOLOXModeSwitchHook

__all__ = ["PipelineSwitchHook", "YOLOXModeSwitchHook"]
