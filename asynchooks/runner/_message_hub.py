"""The message hub: the scalars and infos of a run, written by hooks, read by the log and the checkpoint.

Decides what of it survives in a checkpoint: bounded histories, and infos of plain types, loadable without
running code. Training thread only; what others may see is a `Window` or a `RunnerView`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asynchooks.errors import ConfigError, ForeignCheckpointError
from asynchooks.runner._history import HistoryBuffer, Scalar

__all__ = ["LatestScalars", "MessageHub"]

logger = logging.getLogger(__name__)


class MessageHub:
    """Scalars with a history (``train/loss``), and infos without one (``epoch``).

    Args:
        name: name of the run, in MMEngine's place for it.
        max_length: how many values of each scalar are remembered.
    """

    def __init__(self, name: str = "asynchooks", *, max_length: int = 10_000) -> None:
        self.instance_name = name
        self._max_length = max_length
        self._scalars: dict[str, HistoryBuffer] = {}
        self._infos: dict[str, Any] = {}
        self._resumed: dict[str, bool] = {}
        self._left_out: set[str] = set()

    @property
    def log_scalars(self) -> dict[str, HistoryBuffer]:
        """The histories, by name; the dict is live."""
        return self._scalars

    @property
    def runtime_info(self) -> dict[str, Any]:
        """The infos, by name; the dict is live."""
        return self._infos

    def update_scalar(self, key: str, value: Scalar, count: int = 1, *, resumed: bool = True) -> None:
        """Add a value to a scalar's history. O(1) amortised; a tensor on a device is not waited for.

        Args:
            key: name, such as ``"train/loss"``.
            value: a number, or a tensor with one element.
            count: how many items the value sums up.
            resumed: whether a checkpoint keeps it.
        """
        history = self._scalars.get(key)
        if history is None:
            self._set_resumed(key, resumed=resumed)
            history = self._scalars[key] = HistoryBuffer(max_length=self._max_length)
        try:
            history.update(value, count)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"The scalar {key!r} takes a number or a one-element tensor: {error}"
            ) from error

    def update_scalars(self, log_dict: Mapping[str, Any], *, resumed: bool = True) -> None:
        """Add a value to several scalars: ``{"loss": 0.1}`` or ``{"acc": {"value": 9, "count": 10}}``."""
        for key, value in log_dict.items():
            if isinstance(value, Mapping):
                if "value" not in value:
                    raise ConfigError(f"The scalar {key!r} came as {value!r}; the key 'value' is missing.")
                self.update_scalar(key, value["value"], value.get("count", 1), resumed=resumed)
            else:
                self.update_scalar(key, value, resumed=resumed)

    def update_info(self, key: str, value: Any, *, resumed: bool = True) -> None:
        """Set an info."""
        if key not in self._resumed or self._resumed[key] is not resumed:
            self._set_resumed(key, resumed=resumed)
        self._infos[key] = value

    def update_info_dict(self, info_dict: Mapping[str, Any], *, resumed: bool = True) -> None:
        """Set several infos."""
        for key, value in info_dict.items():
            self.update_info(key, value, resumed=resumed)

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Remove an info and return it."""
        return self._infos.pop(key, default)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return a scalar's history.

        Raises:
            KeyError: it was never updated.
        """
        if key not in self._scalars:
            raise KeyError(f"The message hub has no scalar {key!r}; it has {sorted(self._scalars)}.")
        return self._scalars[key]

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return an info, or the default."""
        return self._infos.get(key, default)

    def latest(self) -> LatestScalars:
        """Return the newest value of each scalar, frozen, for any thread. Does not wait for the device."""
        return LatestScalars({key: history.newest() for key, history in self._scalars.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: tensors and plain types, bounded. Does not wait for the device."""
        return {
            "log_scalars": {
                k: h.state_dict() for k, h in self._scalars.items() if self._resumed.get(k, True)
            },
            "runtime_info": dict(self._plain_infos()),
            "resumed_keys": dict(self._resumed),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Replace scalars and infos of the same names by those of a `state_dict`.

        Raises:
            ForeignCheckpointError: it is none.
        """
        missing = {"log_scalars", "runtime_info", "resumed_keys"} - set(state_dict)
        if missing:
            raise ForeignCheckpointError(f"This is no state of a message hub: {sorted(missing)} are missing.")
        for key, history in state_dict["log_scalars"].items():
            if isinstance(history, Mapping) and "values" in history:
                self._scalars[key] = HistoryBuffer.from_state_dict(dict(history), self._max_length)
            else:
                logger.warning("the history of %s has another format; it starts anew", key)
        self._infos.update(state_dict["runtime_info"])
        self._resumed.update(state_dict["resumed_keys"])

    def _set_resumed(self, key: str, *, resumed: bool) -> None:
        if self._resumed.setdefault(key, resumed) is not resumed:
            raise ConfigError(
                f"{key!r} was updated with resumed={not resumed} before; a key stays what it is."
            )

    def _plain_infos(self) -> Iterator[tuple[str, Any]]:
        for key, value in self._infos.items():
            if not self._resumed.get(key, True):
                continue
            try:
                yield key, _plain(value)
            except TypeError as error:
                if key not in self._left_out:
                    self._left_out.add(key)
                    logger.warning("checkpoints leave out the info %r: %s", key, error)


class LatestScalars(Mapping[str, float]):
    """The newest values of a hub's scalars; one that is still on a device is read when it is asked for."""

    def __init__(self, values: Mapping[str, float | Tensor]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> float:
        return float(self._values[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _plain(value: Any) -> Any:
    """Return a copy made of plain types and tensors."""
    if value is None or isinstance(value, bool | int | float | str | bytes | complex | Tensor):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.item() if isinstance(value, np.generic) else torch.from_numpy(value.copy())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else set(items) if isinstance(value, set) else items
    raise TypeError(f"a {type(value).__name__} can be loaded only by running its code")
