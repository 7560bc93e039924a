"""A progress line for whoever watches: position, speed, newest loss, and what runs in the background.

Looks at the clock in each iteration and at nothing else; a few times per second it takes a handful of numbers and
leaves the drawing to a worker thread. Silent where nobody watches (no terminal). One line that is redrawn in place,
not rich's live display: that hides the cursor until somebody stops it, and a loop of one's own may never say so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook, HookExecutor, background, current_executor
from asynchooks.hooks.progress._line import Line
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["ProgressHook"]


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows epoch, iterations, steps/s, the newest loss and the background work on a terminal.

    Args:
        refresh_s: seconds between two refreshes.
        console: where to draw; None is the process's standard error.
    """

    priority = "LOWEST"
    effects = Effects(writes={"terminal.progress"})
    changes_state = False
    on_error: OnError = "warn"
    when_busy: WhenBusy = "skip"
    max_in_flight = 1

    def __init__(self, *, refresh_s: float = 0.25, console: Console | None = None) -> None:
        if not refresh_s > 0:
            raise ConfigError(f"ProgressHook(refresh_s={refresh_s!r}): give a positive number of seconds.")
        self.refresh_s = refresh_s
        self._line = Line(console or Console(stderr=True))
        self._due = 0.0 if self._line.is_watched else float("inf")
        self._last: tuple[float, int] | None = None

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Redraw the line, a few times per second."""
        now = time.monotonic()
        if now < self._due:
            return None
        del batch_idx, data_batch
        self._due = now + self.refresh_s
        return self._drawing(_train_glance(runner, outputs, self._speed(now, runner.iter + 1)), runner.logger)

    @background
    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Redraw the line, a few times per second."""
        now = time.monotonic()
        if now < self._due:
            return None
        del data_batch, outputs
        self._due = now + self.refresh_s
        self._last = None  # the pause is no slow training step
        total = length_of(getattr(runner, "val_dataloader", None))
        return self._drawing(_Glance("val", batch_idx + 1, total, current_executor()), runner.logger)

    def after_train(self, runner: Any) -> None:
        """Clear the line. A blocking method, so that no drawing comes after it."""
        del runner
        self._last = None
        self._line.clear()

    def _drawing(self, glance: _Glance, logger: logging.Logger) -> BackgroundPart:
        self._line.make_way_for(logger)

        async def draw() -> None:
            await anyio.to_thread.run_sync(lambda: self._line.draw(_render(glance)))

        return draw

    def _speed(self, now: float, done: int) -> float | None:
        last, self._last = self._last, (now, done)
        return None if last is None or now == last[0] else (done - last[1]) / (now - last[0])


@dataclass(frozen=True, slots=True)
class _Glance:
    """What one refresh shows; taken on the training thread, drawn elsewhere."""

    mode: str
    done: int
    total: int | None
    executor: HookExecutor | None
    epoch: str = ""
    steps_per_s: float | None = None
    loss: Any = None


def _train_glance(runner: Any, outputs: Any, steps_per_s: float | None) -> _Glance:
    max_epochs = runner.max_epochs
    return _Glance(
        mode="train",
        done=runner.iter + 1,
        total=runner.max_iters,
        executor=current_executor(),
        epoch=f"epoch {runner.epoch + 1}/{max_epochs}" if max_epochs else "",
        steps_per_s=steps_per_s,
        loss=_loss(outputs),
    )


def _loss(outputs: Any) -> Any:
    """Return the loss without waiting for a device: what is on one is copied there, and read in the background."""
    value: Any = outputs
    if isinstance(outputs, Mapping):
        value = outputs.get("loss") if "loss" in outputs else None
    if not hasattr(value, "detach"):
        return value if isinstance(value, int | float) else None
    if value.numel() != 1:
        return None
    value = value.detach()
    return value.clone() if value.device.type != "cpu" else value.item()


def _render(glance: _Glance) -> Table:
    cells: list[Any] = [Text(glance.mode, style="bold")]
    if glance.epoch:
        cells.append(Text(glance.epoch))
    if glance.total:
        cells += [ProgressBar(total=glance.total, completed=glance.done, width=24)]
    cells.append(Text(f"{glance.done}/{glance.total}" if glance.total else str(glance.done)))
    if glance.steps_per_s is not None:
        cells.append(Text(f"{glance.steps_per_s:.1f} it/s", style="cyan"))
    if glance.loss is not None:
        cells.append(Text(f"loss {float(glance.loss):.4g}", style="magenta"))
    if glance.executor is not None:
        cells.append(Text(_background_work(glance.executor), style="dim"))
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*cells)
    return grid


def _background_work(executor: HookExecutor) -> str:
    rows = [row for row in executor.statistics().hooks if row.hook != ProgressHook.__name__]
    in_flight = sum(row.in_flight for row in rows)
    lag = max((row.lag_steps for row in rows), default=0)
    return f"{in_flight} in flight, lag {lag}"
