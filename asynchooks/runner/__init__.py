"""The synchronous loops: a Runner in MMEngine's manner, MMCV's two, and the state for any loop of one's own."""

from asynchooks.runner._collate import pseudo_collate
from asynchooks.runner._eval_loops import TeacherStudentValLoop, TestLoop, ValLoop
from asynchooks.runner._history import HistoryBuffer
from asynchooks.runner._log_processor import LogProcessor, LogRecord
from asynchooks.runner._loops import EpochBasedTrainLoop, IterBasedTrainLoop
from asynchooks.runner._message_hub import MessageHub
from asynchooks.runner._runner import Runner
from asynchooks.runner._samplers import DefaultSampler, InfiniteSampler
from asynchooks.runner._state import TrainState
from asynchooks.runner._tta import build_runner_with_tta
from asynchooks.runner.mmcv import EpochBasedRunner, IterBasedRunner, build_runner

__all__ = [
    "Runner",
    "TrainState",
    "EpochBasedTrainLoop",
    "IterBasedTrainLoop",
    "ValLoop",
    "TeacherStudentValLoop",
    "TestLoop",
    "MessageHub",
    "HistoryBuffer",
    "LogProcessor",
    "LogRecord",
    "EpochBasedRunner",
    "IterBasedRunner",
    "build_runner",
    "DefaultSampler",
    "InfiniteSampler",
    "pseudo_collate",
    "build_runner_with_tta",
]
