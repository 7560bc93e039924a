"""The built-in hooks, one per module; none knows another."""

from asynchooks.hooks.checkpoint import CheckpointHook
from asynchooks.hooks.iter_timer import IterTimerHook
from asynchooks.hooks.logger import LoggerHook
from asynchooks.hooks.param_scheduler import ParamSchedulerHook
from asynchooks.hooks.progress import ProgressHook
from asynchooks.hooks.runtime_info import RuntimeInfoHook
from asynchooks.hooks.sampler_seed import DistSamplerSeedHook

__all__ = [
    "CheckpointHook",
    "DistSamplerSeedHook",
    "IterTimerHook",
    "LoggerHook",
    "ParamSchedulerHook",
    "ProgressHook",
    "RuntimeInfoHook",
]
