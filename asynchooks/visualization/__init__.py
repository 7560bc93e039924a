"""What a run shows: scalars, images, graphs and its configuration, on several backends.

Everything here is called in the background, in the order that the hooks' effects give (`logs.visualizer`).
"""

from asynchooks.visualization._backend import Image, VisBackend

__all__ = ["Image", "VisBackend"]
