"""What background code may see of a run: a frozen copy of its counters and numbers.

Decides what crosses the thread boundary: numbers, strings and containers of them do; tensors, models and
batches do not. Touching what stayed behind raises `LiveStateError`, which says what to do instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from numbers import Number
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from asynchooks.errors import LiveStateError

__all__ = ["LiveValue", "RunnerView", "SupportsHookView", "freeze_arguments", "view_of"]

_PLAIN = (
    Number,
    str,
    bytes,
    type(None),
    os.PathLike,
    Enum,
)  # numpy's scalars are numbers, 0-d tensors are not


@dataclass(frozen=True, slots=True)
class RunnerView:
    """A frozen copy of a run's position and numbers, safe to read on any thread.

    Attributes:
        epoch: epochs completed, counted from 0.
        iter: iterations completed, counted from 0.
        max_epochs: limit of the run in epochs, or None.
        max_iters: limit of the run in iterations, or None.
        work_dir: the run's folder or URL, or None.
        experiment_name: name of the run, or None.
        metrics: the newest evaluation metrics.
        scalars: the newest value of each scalar of the message hub.
        logger: the run's logger (loggers are safe on any thread).
    """

    epoch: int = 0
    iter: int = 0
    max_epochs: int | None = None
    max_iters: int | None = None
    work_dir: str | None = None
    experiment_name: str | None = None
    metrics: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    scalars: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("asynchooks"))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols are probed with getattr; they are not live state
            raise AttributeError(name)
        raise LiveStateError(
            f"runner.{name} is live training state, and this code runs in the background while training goes "
            f"on. Capture it on the training thread: make the method a `@background def` that reads "
            f"runner.{name} and returns an async function."
        )


class SupportsHookView(Protocol):
    """A context that knows how to describe itself to background code."""

    def hook_view(self) -> RunnerView:
        """Return a frozen copy. Called on the training thread; must be cheap."""


class LiveValue:
    """Stands in background code for an argument that stayed on the training thread."""

    __slots__ = ("_name", "_type")

    def __init__(self, name: str, type_name: str) -> None:
        self._name = name
        self._type = type_name

    def __repr__(self) -> str:
        return f"<{self._name}: {self._type}, left on the training thread>"

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        raise LiveStateError(
            f"{self._name} ({self._type}) is live training state, and this code runs in the background. "
            f"Capture what you need of it on the training thread, in a `@background def`."
        )

    __getitem__ = __iter__ = __len__ = __float__ = __int__ = __bool__ = __add__ = __mul__ = _refuse


def view_of(context: object) -> RunnerView:
    """Return the frozen view of a context: its own `hook_view`, or its plain attributes of known names."""
    if isinstance(context, RunnerView):
        return context
    describe = getattr(context, "hook_view", None)
    if describe is not None:
        view: RunnerView = describe()
        return view
    known: dict[str, Any] = {}
    for name in ("epoch", "iter", "max_epochs", "max_iters", "experiment_name"):
        value = getattr(context, name, None)
        if isinstance(value, int | str):
            known[name] = value
    work_dir = getattr(context, "work_dir", None)
    if isinstance(work_dir, str | os.PathLike):
        known["work_dir"] = os.fspath(work_dir)
    logger = getattr(context, "logger", None)
    if isinstance(logger, logging.Logger):
        known["logger"] = logger
    metrics = getattr(context, "metrics", None)
    if isinstance(metrics, Mapping):
        known["metrics"] = _freeze("metrics", metrics, read_scalars=True)
    return RunnerView(**known)


def freeze_arguments(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a firing's keyword arguments as background code may have them.

    Plain values and containers of them are copied. 0-d tensors under ``metrics`` are read (their owner has
    just been evaluated, nobody races); every other object becomes a `LiveValue`.
    """
    return {name: _freeze(name, value, read_scalars=name == "metrics") for name, value in arguments.items()}


def _freeze(name: str, value: object, *, read_scalars: bool) -> object:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return MappingProxyType(
            {k: _freeze(f"{name}[{k!r}]", v, read_scalars=read_scalars) for k, v in value.items()}
        )
    if isinstance(value, list | tuple | set | frozenset):
        items = (_freeze(f"{name}[{i}]", v, read_scalars=read_scalars) for i, v in enumerate(value))
        return frozenset(items) if isinstance(value, set | frozenset) else tuple(items)
    if read_scalars and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return LiveValue(name, type(value).__name__)
