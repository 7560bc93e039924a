"""`DetVisualizationHook` and `TrackVisualizationHook`: predictions drawn on the images that they were made of."""

from asynchooks.hooks.det_visualization._det import DetVisualizationHook
from asynchooks.hooks.det_visualization._track import TrackVisualizationHook

__all__ = ["DetVisualizationHook", "TrackVisualizationHook"]
