"""Schedules hooks: which part runs where, in which order, and what happens when one fails.

Never touches a tensor or a file. The contract is in this package's README.
"""

from asynchooks.execution._agreement import Agreement
from asynchooks.execution._effects import Effects
from asynchooks.execution._executor import HookExecutor, current_executor
from asynchooks.execution._explain import PointExplanation, explain, shapes_of
from asynchooks.execution._hook import Hook, background
from asynchooks.execution._mmcv_hook import RunnerHook
from asynchooks.execution._points import POINTS
from asynchooks.execution._priority import Priority, get_priority, priority_name
from asynchooks.execution._statistics import HookStatistics, Statistics
from asynchooks.execution._view import RunnerView

__all__ = [
    "Agreement",
    "Hook",
    "RunnerHook",
    "background",
    "Effects",
    "Priority",
    "get_priority",
    "priority_name",
    "RunnerView",
    "HookExecutor",
    "current_executor",
    "Statistics",
    "HookStatistics",
    "POINTS",
    "PointExplanation",
    "explain",
    "shapes_of",
]
