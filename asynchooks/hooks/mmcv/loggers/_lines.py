"""The lines of MMCV's text log, and its lines of JSON. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

__all__ = ["Place", "json_line", "text_line"]

_IN_TEXT = ("mode", "epoch", "iter", "lr", "time", "data_time", "memory")
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands when a line is written.

    Attributes:
        by_epoch: whether epochs are counted.
        of: batches of an epoch, or iterations of the run; None where it is not known.
        eta_s: seconds left, or None.
    """

    by_epoch: bool
    of: int | None
    eta_s: float | None = None


def text_line(values: Mapping[str, Any], place: Place) -> str:
    """Return a line as MMCV writes it: position, learning rate, times, and then everything else."""
    parts = [*_train_parts(values, place)] if values["mode"] == "train" else []
    parts += [_item(name, value) for name, value in values.items() if name not in _IN_TEXT]
    return f"{_position(values, place)}\t{', '.join(parts)}"


def json_line(values: Mapping[str, Any]) -> bytes:
    """Return a line of standard JSON; floats have five digits, but for those in dicts; "nan" is a string."""
    rounded = {name: _rounded(value) for name, value in values.items()}
    return (json.dumps(rounded, default=_plain) + "\n").encode()


def _position(values: Mapping[str, Any], place: Place) -> str:
    mode, epoch, iteration = values["mode"], values["epoch"], values["iter"]
    if mode == "train":
        of = "?" if place.of is None else place.of
        return f"Epoch [{epoch}][{iteration}/{of}]" if place.by_epoch else f"Iter [{iteration}/{of}]"
    return f"Epoch({mode}) [{epoch}][{iteration}]" if place.by_epoch else f"Iter({mode}) [{iteration}]"


def _train_parts(values: Mapping[str, Any], place: Place) -> list[str]:
    lr = values["lr"]
    rates = {f"lr_{name}": each for name, each in lr.items()} if isinstance(lr, Mapping) else {"lr": lr}
    parts = [" ".join(f"{name}: {rate:.3e}" for name, rate in rates.items())]
    if "time" in values and place.eta_s is not None:
        parts.append(f"eta: {timedelta(seconds=int(place.eta_s))}")
    parts += [f"{name}: {values[name]:.3f}" for name in ("time", "data_time") if name in values]
    return parts + ([f"memory: {values['memory']}"] if "memory" in values else [])


def _item(name: str, value: Any) -> str:
    return f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return _rounded(getattr(value, method)())
    return str(value)
