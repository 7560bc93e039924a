"""What a logger takes on the training thread: numbers and texts as they were at one instant, read later.

Decides names: ``train/loss``, ``learning_rate``, ``momentum/{optimizer}``. Takes copies of tensors and waits for no
device; reading waits, on whatever thread.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Record", "frozen", "is_scalar", "loggable", "rate_tags"]

EVAL_ITERS = "eval_iter_num"  # how many batches an evaluation had: where it stands, not what it found


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a log.

    Attributes:
        mode: "train" or "val".
        epoch: epoch that the line belongs to, counted from 1.
        iter: training iteration, counted from 1.
        inner_iter: iteration inside of its epoch, where epochs are counted, or of the evaluation.
        output: what hooks have put into the log buffer.
        averages: what the log buffer has collected, to be averaged; None where no average is due.
        rates: learning rates and momenta by their tags.
        extra: what one logger needs besides.
        ready: device event after which the copies may be read, or None.
    """

    mode: str
    epoch: int
    iter: int
    inner_iter: int
    output: Mapping[str, Any]
    averages: Any = None
    rates: Mapping[str, float] = field(default_factory=dict)
    extra: Any = None
    ready: Any = None

    def read(self) -> dict[str, Any]:
        """Return everything by its name; tensors of one element are numbers. Waits for the device."""
        return {**self.read_averages(), **self.read_output()}

    def read_averages(self) -> dict[str, float]:
        """Return the averages by their names. Waits for the device."""
        return {} if self.averages is None else dict(self.averages.read())

    def read_output(self) -> dict[str, Any]:
        """Return what hooks have put in by its name. Waits for the device."""
        if self.ready is not None:
            self.ready.synchronize()
        return {name: _number(value) for name, value in self.output.items()}

    def tags(self, *, allow_text: bool = False, add_mode: bool = True) -> dict[str, Any]:
        """Return what is logged, by its tag. Waits for the device."""
        prefix = f"{self.mode}/" if add_mode else ""
        return {**loggable(self.read(), prefix=prefix, allow_text=allow_text), **self.rates}


def frozen(output: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return a copy of values that change no more, and the event after which they may be read."""
    copies = {name: _copy(value) for name, value in output.items()}
    on_device = any(isinstance(value, Tensor) and value.is_cuda for value in copies.values())
    return copies, torch.cuda.current_stream().record_event() if on_device else None


def loggable(
    values: Mapping[str, Any],
    *,
    prefix: str = "",
    allow_scalar: bool = True,
    allow_text: bool = False,
    skip: Collection[str] = ("time", "data_time"),
) -> dict[str, Any]:
    """Return the values that a logger takes, by their tags."""
    return {
        f"{prefix}{name}": value
        for name, value in values.items()
        if name not in skip
        and name != EVAL_ITERS
        and (allow_scalar or not is_scalar(value))
        and (allow_text or not isinstance(value, str))
    }


def is_scalar(value: Any, *, include_np: bool = True, include_torch: bool = True) -> bool:
    """Whether a value is one number: of Python, an array without dimensions, a tensor of one element."""
    if isinstance(value, numbers.Number):
        return True
    if isinstance(value, np.ndarray):
        return include_np and value.ndim == 0
    return include_torch and isinstance(value, Tensor) and value.numel() == 1


def rate_tags(tag: str, rates: Any) -> dict[str, float]:
    """Return the first group's rate under its tag; with several optimizers, each under its own."""
    if isinstance(rates, Mapping):
        return {f"{tag}/{name}": each[0] for name, each in rates.items()}
    return {tag: rates[0]}


def _number(value: Any) -> Any:
    """Return a tensor or array of one element as a number of Python; anything else as it is."""
    if is_scalar(value) and hasattr(value, "item"):
        return value.item()
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: _copy(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        copies = [_copy(each) for each in value]
        return tuple(copies) if isinstance(value, tuple) else copies
    return value
