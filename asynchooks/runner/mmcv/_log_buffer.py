"""The log buffer: what models and hooks report of each iteration, and its averages, as MMCV's loggers read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.runner._history import HistoryBuffer, Window

__all__ = ["Averages", "LogBuffer"]


@dataclass(frozen=True, slots=True)
class Averages:
    """The newest values of a log buffer as they were at one instant; may be read later, on any thread."""

    windows: Mapping[str, Window]

    def read(self) -> dict[str, float]:
        """Return the averages, weighted by their counts. Waits for the device where values are still there."""
        averages = {}
        for name, window in self.windows.items():
            values, counts = window.read(), window.counts
            averages[name] = float((values * counts).sum() / counts.sum())
        return averages


class LogBuffer:
    """Values by name, each with the number of samples it is a mean of.

    Attributes:
        output: what is logged next: averages, and what hooks put in.
        ready: whether there is something to log.
    """

    def __init__(self) -> None:
        self.output: dict[str, Any] = {}
        self.ready = False
        self._histories: dict[str, HistoryBuffer] = {}

    @property
    def val_history(self) -> dict[str, list[float]]:
        """The values by name. Waits for the device where values are still there."""
        return {name: history.data[0].tolist() for name, history in self._histories.items()}

    @property
    def n_history(self) -> dict[str, list[int]]:
        """The counts by name."""
        return {name: history.window().counts.tolist() for name, history in self._histories.items()}

    def update(self, vars: Mapping[str, Any], count: int = 1) -> None:  # noqa: A002 - MMCV's name
        """Add values: numbers or one-element tensors, means over ``count`` samples. Does not wait for a device."""
        if not isinstance(vars, Mapping):
            raise TypeError(f"LogBuffer.update takes a dict of names to numbers, not {vars!r}.")
        for name, value in vars.items():
            history = self._histories.get(name)
            if history is None:
                history = self._histories[name] = HistoryBuffer()
            try:
                history.update(value, count)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"The log variable {name!r} takes a number or a one-element tensor: {error}"
                ) from error

    def capture(self, n: int = 0) -> Averages:
        """Return the newest ``n`` values of each name (all for 0), to be averaged later, on any thread."""
        if n < 0:
            raise ConfigError(f"LogBuffer: the average covers the newest n values, or all for 0; not {n}.")
        return Averages({name: history.window(n or None) for name, history in self._histories.items()})

    def average(self, n: int = 0) -> None:
        """Average the newest ``n`` values of each name (all for 0) into ``output``. Waits for the device."""
        self.output.update(self.capture(n).read())
        self.ready = True

    def clear(self) -> None:
        """Forget everything."""
        self._histories.clear()
        self.clear_output()

    def clear_output(self) -> None:
        """Forget what was to be logged next."""
        self.output.clear()
        self.ready = False
