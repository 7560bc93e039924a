"""`DetVisualizationHook` and its like for grounding and tracks: predictions, drawn on their images."""

from asynchooks.hooks.det_visualization._det import DetVisualizationHook
from asynchooks.hooks.det_visualization._grounding import GroundingVisualizationHook
from asynchooks.hooks.det_visualization._track import TrackVisualizationHook

__all__ = ["DetVisualizationHook", "GroundingVisualizationHook", "TrackVisualizationHook"]
