"""Run the hooks of PyTorch training asynchronously, with the result of running them inline.

Importing this package loads no torch; names that need it are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynchooks._version import __version__
from asynchooks.execution import (
    POINTS,
    Effects,
    Hook,
    HookExecutor,
    Priority,
    RunnerView,
    background,
    current_executor,
)

if TYPE_CHECKING:
    from asynchooks.checkpoint import Checkpointer, restore
    from asynchooks.registry import HOOKS
    from asynchooks.runner import Runner, TrainState

__all__ = [
    "HOOKS",
    "POINTS",
    "Checkpointer",
    "Effects",
    "Hook",
    "HookExecutor",
    "Priority",
    "Runner",
    "RunnerView",
    "TrainState",
    "__version__",
    "background",
    "current_executor",
    "restore",
]

_LAZY = {
    "Checkpointer": "asynchooks.checkpoint",
    "HOOKS": "asynchooks.registry",
    "Runner": "asynchooks.runner",
    "TrainState": "asynchooks.runner",
    "restore": "asynchooks.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'asynchooks' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
