"""MMCV's loggers: what a run says, to the terminal, to files and to tracking services."""

from asynchooks.hooks.mmcv.loggers._base import LoggerHook
from asynchooks.hooks.mmcv.loggers._dvclive import DvcliveLoggerHook
from asynchooks.hooks.mmcv.loggers._mlflow import MlflowLoggerHook
from asynchooks.hooks.mmcv.loggers._mmdet_wandb import MMDetWandbHook
from asynchooks.hooks.mmcv.loggers._pavi import PaviLoggerHook
from asynchooks.hooks.mmcv.loggers._services import ClearMLLoggerHook, NeptuneLoggerHook, SegmindLoggerHook
from asynchooks.hooks.mmcv.loggers._tensorboard import TensorboardLoggerHook
from asynchooks.hooks.mmcv.loggers._text import TextLoggerHook
from asynchooks.hooks.mmcv.loggers._wandb import WandbLoggerHook

__all__ = [
    "LoggerHook",
    "TextLoggerHook",
    "TensorboardLoggerHook",
    "WandbLoggerHook",
    "MlflowLoggerHook",
    "PaviLoggerHook",
    "NeptuneLoggerHook",
    "DvcliveLoggerHook",
    "SegmindLoggerHook",
    "ClearMLLoggerHook",
    "MMDetWandbHook",
]
