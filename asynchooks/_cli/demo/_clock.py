"""Times the training loop from inside, as a hook: the demo's own watch, independent of what the executor says.

Decides what a step is: from the first hook before it to the first hook after it. What lies between two steps
(data, the other hooks) is not the step's. The first step is left out, and the loop begins after it: it allocates
the optimizer's state, which a short block would pay as dearly as a long run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Effects, Hook
from asynchooks.instrument import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynchooks.instrument import Instrument

__all__ = ["VALIDATION", "LossKeeper", "StepClock"]

VALIDATION = "validation"


class StepClock(Hook):
    """Reports each training step but the first, and each validation, as a span; and when the loop began and ended.

    Args:
        instrument: receives the ``"step"`` spans; a validation's hook is `VALIDATION`.
        on_step: called after each step, for a progress display; must be quick.
        wait_for_device: called before the clock is read; None where the training thread does the work itself.
    """

    priority = "HIGHEST"
    effects = Effects()

    def __init__(
        self,
        instrument: Instrument,
        on_step: Callable[[], None] | None = None,
        wait_for_device: Callable[[], None] | None = None,
    ) -> None:
        self._instrument = instrument
        self._on_step = on_step
        self._wait_for_device = wait_for_device
        self._step_start_ns = 0
        self._validation_start_ns = 0
        self._has_warmed_up = False
        self.loop_start_ns = 0
        self.loop_end_ns = 0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start the watch."""
        del runner, batch_idx, data_batch
        self._step_start_ns = time.perf_counter_ns()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop the watch and report the step."""
        del batch_idx, data_batch, outputs
        if self._wait_for_device is not None:
            self._wait_for_device()
        end_ns = time.perf_counter_ns()
        if self._has_warmed_up:
            self._instrument.record(Span("step", "", "", self._step_start_ns, end_ns, runner.iter))
        else:
            self._has_warmed_up, self.loop_start_ns = True, end_ns
        if self._on_step is not None:
            self._on_step()

    def before_val(self, runner: Any) -> None:
        """Start the watch for a validation."""
        self._validation_start_ns = time.perf_counter_ns()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Stop the watch and report the validation."""
        span = Span("step", VALIDATION, "", self._validation_start_ns, time.perf_counter_ns(), runner.iter)
        self._instrument.record(span)

    def after_train(self, runner: Any) -> None:
        """Note the end of the loop; what the run still waits for comes after it."""
        del runner
        self.loop_end_ns = time.perf_counter_ns()


class LossKeeper(Hook):
    """Keeps the loss of each step; reads none of them before the end, so that no step waits for the device."""

    effects = Effects()

    def __init__(self) -> None:
        self._losses: list[Any] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the step's."""
        del runner, batch_idx, data_batch
        self._losses.append(outputs["loss"].detach().clone())

    def values(self) -> list[float]:
        """The losses in nats per byte, one for each step."""
        return [float(loss) for loss in self._losses]
