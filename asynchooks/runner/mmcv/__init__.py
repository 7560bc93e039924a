"""MMCV 1.x's runners, over the same executor, checkpoints, message hub and feed of batches as `Runner`."""

from asynchooks.runner.mmcv._base import BaseRunner
from asynchooks.runner.mmcv._build import RUNNER_BUILDERS, DefaultRunnerConstructor, build_runner
from asynchooks.runner.mmcv._configured import ConfiguredRun
from asynchooks.runner.mmcv._epoch import EpochBasedRunner
from asynchooks.runner.mmcv._iter import IterBasedRunner, IterLoader
from asynchooks.runner.mmcv._log_buffer import LogBuffer

__all__ = [
    "EpochBasedRunner",
    "IterBasedRunner",
    "BaseRunner",
    "ConfiguredRun",
    "IterLoader",
    "LogBuffer",
    "RUNNER_BUILDERS",
    "DefaultRunnerConstructor",
    "build_runner",
]
