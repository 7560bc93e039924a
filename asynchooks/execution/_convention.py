"""How MMCV 1.x calls hooks: every method gets the runner alone, and generic methods have names without a mode. Pure.

Decides which of a hook's methods runs at a point where it follows that convention, and adapts one that takes the
runner alone to the arguments with which the point is fired. A method that takes the point's arguments gets them
under either convention, so hooks of both kinds work beside each other in one run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from asynchooks.execution._points import ARGUMENTS, POINTS

__all__ = ["MMCV_GENERIC", "MMCV_POINTS", "adapted", "needs_mmcv"]

MMCV_POINTS: tuple[str, ...] = (
    "before_run",
    "before_train_epoch",
    "before_train_iter",
    "after_train_iter",
    "after_train_epoch",
    "before_val_epoch",
    "before_val_iter",
    "after_val_iter",
    "after_val_epoch",
    "after_run",
)

# point -> the method that serves it where its own is not overridden
MMCV_GENERIC: dict[str, str] = {
    f"{when}_{mode}_{unit}": f"{when}_{unit}"
    for when in ("before", "after")
    for unit in ("epoch", "iter")
    for mode in ("train", "val")
}

_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("runner", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD),
    ]
)


def adapted(method: Callable[..., Any], point: str) -> Callable[..., Any]:
    """Return what the executor calls for a method at a point: itself, unless it takes the runner alone."""
    if not ARGUMENTS.get(point) or not _takes_runner_alone(method):
        return method

    # The arguments of the iteration points have names of their own here: packing them into a dict costs more.
    def call(
        runner: Any, /, batch_idx: Any = None, data_batch: Any = None, outputs: Any = None, **_: Any
    ) -> Any:
        del batch_idx, data_batch, outputs
        return method(runner)

    call.__wrapped__ = method  # type: ignore[attr-defined]  # its shape says where it runs
    call.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    return call


def needs_mmcv(hook: object) -> bool:
    """Whether a hook that names no convention has methods that only MMCV's would call."""
    if any(callable(getattr(hook, name, None)) for name in set(MMCV_GENERIC.values())):
        return True
    methods = ((point, getattr(hook, point, None)) for point in POINTS if ARGUMENTS.get(point))
    return any(callable(method) and _takes_runner_alone(method) for _, method in methods)


def _takes_runner_alone(method: Callable[..., Any]) -> bool:
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return False  # refused under its own name
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len(parameters) == 1 and parameters[0].kind in positional
