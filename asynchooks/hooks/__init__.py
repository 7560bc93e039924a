"""The built-in hooks, one per module; none knows another.

A hook is added by writing its module: what this folder holds is found, registered and importable from here.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Hook

if TYPE_CHECKING:  # for those who read types; the names come from the modules
    from asynchooks.hooks.checkpoint import CheckpointHook as CheckpointHook
    from asynchooks.hooks.iter_timer import IterTimerHook as IterTimerHook
    from asynchooks.hooks.logger import LoggerHook as LoggerHook
    from asynchooks.hooks.param_scheduler import ParamSchedulerHook as ParamSchedulerHook
    from asynchooks.hooks.progress import ProgressHook as ProgressHook
    from asynchooks.hooks.runtime_info import RuntimeInfoHook as RuntimeInfoHook
    from asynchooks.hooks.sampler_seed import DistSamplerSeedHook as DistSamplerSeedHook

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
    raise AttributeError(f"module {__name__!r} has no hook {name!r}")
