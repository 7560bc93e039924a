"""The built-in hooks, one per module; none knows another.

A hook is added by writing its module: what this folder holds is found, registered and importable from here.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Hook

if TYPE_CHECKING:  # for those who read types; the names come from the modules
    from asynchooks.hooks.check_invalid_loss import CheckInvalidLossHook as CheckInvalidLossHook
    from asynchooks.hooks.checkpoint import CheckpointHook as CheckpointHook
    from asynchooks.hooks.det_visualization import DetVisualizationHook as DetVisualizationHook
    from asynchooks.hooks.det_visualization import GroundingVisualizationHook as GroundingVisualizationHook
    from asynchooks.hooks.det_visualization import TrackVisualizationHook as TrackVisualizationHook
    from asynchooks.hooks.early_stopping import EarlyStoppingHook as EarlyStoppingHook
    from asynchooks.hooks.ema import EMAHook as EMAHook
    from asynchooks.hooks.empty_cache import EmptyCacheHook as EmptyCacheHook
    from asynchooks.hooks.iter_timer import IterTimerHook as IterTimerHook
    from asynchooks.hooks.logger import LoggerHook as LoggerHook
    from asynchooks.hooks.mean_teacher import MeanTeacherHook as MeanTeacherHook
    from asynchooks.hooks.memory_profiler import MemoryProfilerHook as MemoryProfilerHook
    from asynchooks.hooks.mode_switch import PipelineSwitchHook as PipelineSwitchHook
    from asynchooks.hooks.mode_switch import YOLOXModeSwitchHook as YOLOXModeSwitchHook
    from asynchooks.hooks.momentum_ema import BaseEMAHook as BaseEMAHook
    from asynchooks.hooks.momentum_ema import ExpMomentumEMAHook as ExpMomentumEMAHook
    from asynchooks.hooks.momentum_ema import LinearMomentumEMAHook as LinearMomentumEMAHook
    from asynchooks.hooks.naive_visualization import NaiveVisualizationHook as NaiveVisualizationHook
    from asynchooks.hooks.num_class_check import NumClassCheckHook as NumClassCheckHook
    from asynchooks.hooks.param_scheduler import ParamSchedulerHook as ParamSchedulerHook
    from asynchooks.hooks.ppyoloe_param_scheduler import (
        PPYOLOEParamSchedulerHook as PPYOLOEParamSchedulerHook,
    )
    from asynchooks.hooks.preemption import PreemptionHook as PreemptionHook
    from asynchooks.hooks.prepare_tta import PrepareTTAHook as PrepareTTAHook
    from asynchooks.hooks.profiler import ProfilerHook as ProfilerHook
    from asynchooks.hooks.progress import ProgressHook as ProgressHook
    from asynchooks.hooks.runtime_info import RuntimeInfoHook as RuntimeInfoHook
    from asynchooks.hooks.sampler_seed import DistSamplerSeedHook as DistSamplerSeedHook
    from asynchooks.hooks.set_epoch_info import SetEpochInfoHook as SetEpochInfoHook
    from asynchooks.hooks.switch_to_deploy import SwitchToDeployHook as SwitchToDeployHook
    from asynchooks.hooks.sync_buffers import SyncBuffersHook as SyncBuffersHook
    from asynchooks.hooks.sync_norm import SyncNormHook as SyncNormHook
    from asynchooks.hooks.sync_random_size import SyncRandomSizeHook as SyncRandomSizeHook
    from asynchooks.hooks.yolov5_param_scheduler import YOLOv5ParamSchedulerHook as YOLOv5ParamSchedulerHook

_FAMILIES = ("mmcv",)  # packages of hooks with names of their own


def _found() -> dict[str, type[Hook]]:
    modules = [
        import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__) if m.name not in _FAMILIES
    ]
    return {name: vars(module)[name] for module in modules for name in module.__all__}


_HOOKS = _found()
globals().update(_HOOKS)
__all__ = sorted(_HOOKS)  # noqa: PLE0605 - what the modules say


def __getattr__(name: str) -> Any:
    for family in _FAMILIES:  # what only one of them has needs no scope
        found = vars(import_module(f"{__name__}.{family}")).get(name)
        if isinstance(found, type) and issubclass(found, Hook):
            return found
    raise AttributeError(f"module {__name__!r} has no hook {name!r}")
