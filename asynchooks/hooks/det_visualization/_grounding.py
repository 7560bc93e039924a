"""Draws what a sentence was grounded in."""

from __future__ import annotations

from asynchooks.hooks.det_visualization._det import DetVisualizationHook
from asynchooks.registry import HOOKS

__all__ = ["GroundingVisualizationHook"]


@HOOKS.register_module()
class GroundingVisualizationHook(DetVisualizationHook):
    """Draws the boxes of phrase grounding and of open-vocabulary detection, as `DetVisualizationHook` does.

    Arguments and points are the same. Unlike MMDetection's, which writes a sample's sentence below its picture, each
    phrase in the color of its box, and prints its boxes, this one draws the boxes alone.
    """
