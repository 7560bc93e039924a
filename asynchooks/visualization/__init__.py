"""What a run shows: scalars, images, graphs and its configuration, on several backends.

Everything here is called in the background, in the order that the hooks' effects give (`logs.visualizer`).
"""

__all__: list[str] = []
