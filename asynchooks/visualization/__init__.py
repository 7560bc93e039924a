"""What a run shows: scalars, images, graphs and its configuration, on several backends.

Everything here is called in the background, in the order that the hooks' effects give (`logs.visualizer`).
"""

from asynchooks.visualization._aim import AimVisBackend
from asynchooks.visualization._backend import Image, VisBackend
from asynchooks.visualization._clearml import ClearMLVisBackend
from asynchooks.visualization._client import check_package, files_below
from asynchooks.visualization._dvclive import DVCLiveVisBackend
from asynchooks.visualization._graph import skeleton
from asynchooks.visualization._image import check_pillow, decode_image, encode_image
from asynchooks.visualization._inputs import input_image, inputs_of
from asynchooks.visualization._local import LocalVisBackend
from asynchooks.visualization._mlflow import MLflowVisBackend
from asynchooks.visualization._neptune import NeptuneVisBackend
from asynchooks.visualization._sample import DataSample, copy_sample, field_of, samples_of
from asynchooks.visualization._scalars import numbers_by_name
from asynchooks.visualization._tensorboard import TensorboardVisBackend
from asynchooks.visualization._visualizer import Visualizer
from asynchooks.visualization._wandb import WandbVisBackend

__all__ = [
    "Visualizer",
    "VisBackend",
    "LocalVisBackend",
    "TensorboardVisBackend",
    "WandbVisBackend",
    "MLflowVisBackend",
    "ClearMLVisBackend",
    "NeptuneVisBackend",
    "DVCLiveVisBackend",
    "AimVisBackend",
    "Image",
    "numbers_by_name",
    "check_package",
    "files_below",
    "DataSample",
    "copy_sample",
    "field_of",
    "samples_of",
    "inputs_of",
    "input_image",
    "skeleton",
    "check_pillow",
    "decode_image",
    "encode_image",
]
