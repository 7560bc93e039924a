"""The history of one scalar: bounded, O(1) per update, and readable without stopping the device.

Decides how many values are remembered and how they are averaged. A tensor on an accelerator is kept as a
copy on the accelerator; it is read when somebody asks for numbers, which may be on another thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asynchooks.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["HistoryBuffer", "Scalar", "Window"]

Scalar: TypeAlias = "float | int | np.number[Any] | Tensor"
_Floats: TypeAlias = NDArray[np.float64]
_Counts: TypeAlias = NDArray[np.int64]

_FIRST_CAPACITY = 64
_STACK_EVERY = 64  # tensors on the device are stacked in blocks of this size


@dataclass(frozen=True, slots=True)
class Window:
    """The newest values of a history as they were at one instant; may be read later, on any thread.

    Attributes:
        values: numbers; NaN where the number is still on a device.
        counts: how many items each value sums up.
        unread: 1-d device tensors that hold the missing numbers.
        unread_at: their positions in ``values``.
        ready: device event after which they may be read, or None.
    """

    values: _Floats
    counts: _Counts
    unread: tuple[Tensor, ...] = ()
    unread_at: tuple[_Counts, ...] = ()
    ready: torch.Event | None = None

    def read(self) -> _Floats:
        """Return the values. Waits for the device where some are still there."""
        if not self.unread:
            return self.values
        if self.ready is not None:
            self.ready.synchronize()
        values = self.values.copy()
        for at, tensor in zip(self.unread_at, self.unread, strict=True):
            values[at] = tensor.to(device="cpu", dtype=torch.float64).numpy()
        return values

    def statistic(self, method: str) -> float:
        """Return "mean", "min", "max" or "current" of the window.

        Raises:
            ConfigError: no such statistic, or the window is empty.
        """
        if method not in _STATISTICS:
            raise ConfigError(
                f"A history has no statistic {method!r}.{did_you_mean(method, _STATISTICS)} "
                f"It has {', '.join(_STATISTICS)}."
            )
        if not len(self.values):
            raise ConfigError(f"The {method} of a history without values was asked for; update it first.")
        return _STATISTICS[method](self.read(), self.counts)


def _mean(values: _Floats, counts: _Counts) -> float:
    return float(values.sum() / counts.sum())


_STATISTICS: dict[str, Callable[[_Floats, _Counts], float]] = {
    "mean": _mean,
    "min": lambda values, _: float(values.min()),
    "max": lambda values, _: float(values.max()),
    "current": lambda values, _: float(values[-1]),
}


@dataclass(slots=True)
class _Block:
    """Device values that belong to known updates."""

    first: int  # number of the first update
    numbers: list[int]
    tensor: Tensor


class HistoryBuffer:
    """The newest values of a scalar, at most ``max_length`` of them.

    Args:
        log_history: values to start with.
        count_history: their counts; ones where it is left out.
        max_length: how many values are remembered; older ones are forgotten, also by "global" statistics.
    """

    def __init__(
        self,
        log_history: Sequence[float] | _Floats = (),
        count_history: Sequence[int] | _Counts | None = None,
        max_length: int = 10_000,
    ) -> None:
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
            raise ConfigError(f"HistoryBuffer(max_length={max_length!r}): give an int of at least 1.")
        values = np.asarray(log_history, dtype=np.float64)[-max_length:]
        counts = np.ones(len(values)) if count_history is None else np.asarray(count_history)[-max_length:]
        if len(values) != len(counts):
            raise ConfigError(
                f"{len(values)} values came with {len(counts)} counts; give one count for each."
            )
        self.max_length = max_length
        capacity = max(_FIRST_CAPACITY, len(values))
        self._values: _Floats = np.empty(capacity, np.float64)
        self._counts: _Counts = np.ones(capacity, np.int64)
        self._values[: len(values)] = values
        self._counts[: len(values)] = counts
        self._capacity = capacity
        self._end = len(values)
        self._dropped = 0  # updates that stand in front of the arrays no more
        self._pending: list[tuple[int, Tensor]] = []
        self._blocks: deque[_Block] = deque()

    def __len__(self) -> int:
        return self._length

    @property
    def _length(self) -> int:
        return min(self._end, self.max_length)

    @property
    def _updates(self) -> int:
        return self._dropped + self._end

    def update(self, log_val: Scalar, count: int = 1) -> None:
        """Add a value that sums up ``count`` items. O(1) amortised; never waits for the device.

        A tensor on an accelerator is copied there; one on the CPU is read at once.
        """
        if self._end == self._capacity:
            self._make_room()
        end = self._end
        self._values[end] = log_val if type(log_val) is float else self._number(log_val)
        if count != 1:
            self._counts[end] = count
        self._end = end + 1

    @property
    def data(self) -> tuple[_Floats, _Counts]:
        """The remembered values and counts, oldest first. Waits for the device where values are there."""
        window = self.window()
        return window.read(), window.counts

    def mean(self, window_size: int | None = None) -> float:
        """Return the mean of the newest values, weighted by their counts."""
        return self.window(window_size).statistic("mean")

    def min(self, window_size: int | None = None) -> float:
        """Return the least of the newest values."""
        return self.window(window_size).statistic("min")

    def max(self, window_size: int | None = None) -> float:
        """Return the greatest of the newest values."""
        return self.window(window_size).statistic("max")

    def current(self) -> float:
        """Return the newest value."""
        return self.window(1).statistic("current")

    def statistics(self, method_name: str, window_size: int | None = None) -> float:
        """Return a statistic by its name."""
        return self.window(window_size).statistic(method_name)

    def window(self, size: int | None = None) -> Window:
        """Return the newest ``size`` values (all where None) as they are now. Training thread; does not wait."""
        size = self._length if size is None else min(size, self._length)
        start = self._end - size
        values = self._values[start : self._end].copy()
        counts = self._counts[start : self._end].copy()
        if not self._pending and not self._blocks:
            return Window(values, counts)
        return self._window_on_device(values, counts)

    def newest(self) -> float | Tensor:
        """Return the newest value: a number, or a 0-d tensor that nothing changes any more."""
        if self._pending and self._pending[-1][0] == self._updates - 1:
            return self._pending[-1][1]
        if self._blocks and self._blocks[-1].numbers[-1] == self._updates - 1:
            return self._blocks[-1].tensor[-1]
        return float(self._values[self._end - 1])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the history as tensors. Does not wait for the device."""
        window = self.window()
        state = {"values": torch.from_numpy(window.values), "counts": torch.from_numpy(window.counts)}
        if window.unread:
            state["unread"] = torch.cat(window.unread)
            state["unread_at"] = torch.from_numpy(np.concatenate(window.unread_at))
        return state

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor], max_length: int = 10_000) -> HistoryBuffer:
        """Return the history that `state_dict` described."""
        values = state["values"].to(torch.float64).numpy().copy()
        if "unread" in state:
            at = state["unread_at"].cpu().numpy()
            values[at] = state["unread"].to(device="cpu", dtype=torch.float64).numpy()
        return cls(values, state["counts"].numpy(), max_length)

    def _number(self, value: Scalar) -> float:
        if not isinstance(value, Tensor):
            return float(value)
        if value.is_cpu:
            try:
                return float(value.item())
            except RuntimeError:  # it says so itself, later than a question before would, and at no cost
                raise _not_one_element(value) from None
        if value.numel() != 1:
            raise _not_one_element(value)
        self._pending.append((self._updates, value.detach().reshape(()).clone()))
        if len(self._pending) >= _STACK_EVERY:
            self._stack()
        return float("nan")

    def _stack(self) -> None:
        numbers = [number for number, _ in self._pending]
        self._blocks.append(_Block(numbers[0], numbers, torch.stack([t for _, t in self._pending])))
        self._pending.clear()
        oldest = self._updates - self._length
        while self._blocks and self._blocks[0].numbers[-1] < oldest:
            self._blocks.popleft()

    def _make_room(self) -> None:
        length = self._length
        capacity = max(_FIRST_CAPACITY, 2 * length)
        values, counts = np.empty(capacity, np.float64), np.ones(capacity, np.int64)
        values[:length] = self._values[self._end - length : self._end]
        counts[:length] = self._counts[self._end - length : self._end]
        self._dropped += self._end - length
        self._values, self._counts, self._end, self._capacity = values, counts, length, capacity

    def _window_on_device(self, values: _Floats, counts: _Counts) -> Window:
        oldest = self._updates - len(values)
        at: list[_Counts] = []
        tensors: list[Tensor] = []
        for block in self._blocks:
            skip = sum(number < oldest for number in block.numbers)
            if skip < len(block.numbers):
                at.append(np.asarray(block.numbers[skip:], np.int64) - oldest)
                tensors.append(block.tensor[skip:])
        recent = [(number - oldest, tensor) for number, tensor in self._pending if number >= oldest]
        if recent:
            at.append(np.asarray([number for number, _ in recent], np.int64))
            tensors.append(torch.stack([tensor for _, tensor in recent]))
        ready = torch.cuda.current_stream().record_event() if tensors and tensors[0].is_cuda else None
        return Window(values, counts, tuple(tensors), tuple(at), ready)


def _not_one_element(value: Tensor) -> ConfigError:
    return ConfigError(f"A scalar has one element; this tensor has the shape {tuple(value.shape)}.")
