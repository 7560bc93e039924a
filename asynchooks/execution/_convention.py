"""How MMCV 1.x calls hooks: every method gets the runner alone, and generic methods have names without a mode. Pure.

Decides which of a hook's methods runs at a point where it follows that convention, and adapts one that takes the
runner alone to the arguments with which the point is fired. A method that takes the point's arguments gets them
under either convention, so hooks of both kinds work beside each other in one run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from asynchooks.execution._points import ARGUMENTS

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
    arguments = ARGUMENTS.get(point)
    if not arguments or _takes(method, *arguments) or not _takes(method):
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
    methods = ((getattr(hook, point, None), names) for point, names in ARGUMENTS.items())
    return any(callable(m) and not _takes(m, *names) and _takes_one(m) for m, names in methods)


def _takes(method: Callable[..., Any], *names: str) -> bool:
    """Whether a method can be called with the runner and arguments of these names."""
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return False  # refused under its own name
    try:
        inspect.signature(method).bind(None, **dict.fromkeys(names))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: only the call can tell
        return bool(names)
    return True


def _takes_one(method: Callable[..., Any]) -> bool:
    """Whether a method has one parameter: one more, even with a default, may be a misspelt argument."""
    return _takes(method) and len(inspect.signature(method).parameters) == 1
