"""What a run shows: scalars, images, graphs and its configuration, on several backends.

Everything here is called in the background, in the order that the hooks' effects give (`logs.visualizer`).
"""

from asynchooks.visualization._backend import Image, VisBackend
from asynchooks.visualization._graph import skeleton
from asynchooks.visualization._image import check_pillow, decode_image, encode_image
from asynchooks.visualization._local import LocalVisBackend
from asynchooks.visualization._sample import DataSample, copy_sample, field_of, samples_of
from asynchooks.visualization._scalars import numbers_by_name
from asynchooks.visualization._tensorboard import TensorboardVisBackend
from asynchooks.visualization._visualizer import Visualizer

__all__ = [
    "Visualizer",
    "VisBackend",
    "LocalVisBackend",
    "TensorboardVisBackend",
    "Image",
    "numbers_by_name",
    "DataSample",
    "copy_sample",
    "field_of",
    "samples_of",
    "skeleton",
    "check_pillow",
    "decode_image",
    "encode_image",
]
