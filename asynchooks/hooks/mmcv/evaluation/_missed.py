"""An evaluation that an interruption has cut off is made up for by the run that goes on.

A checkpoint of an epoch (or iteration) is captured before the evaluation after it. Where the run ends between them,
nothing but the hook's own state tells that the evaluation is missing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynchooks.execution import background
from asynchooks.hooks.mmcv.evaluation._schedule import Schedule

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["MissedEvaluation"]


class MissedEvaluation:
    """Remembers the last finished evaluation, and makes up for one that is missing where a run is resumed."""

    by_epoch: bool
    initial_flag: bool
    latest_metrics: Mapping[str, Any]
    _schedule: Schedule
    _last: int | None = None  # epochs, or iterations, done at the last finished evaluation
    _is_resumed = False

    @abstractmethod
    def _do_evaluate(self, runner: Any, done: Mapping[str, int]) -> BackgroundPart | None:
        """Evaluate now."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to know."""
        return {"last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of the run that goes on."""
        self._last, self._is_resumed = state["last"], True

    @background
    def before_train(self, runner: Any) -> BackgroundPart | None:
        """Evaluate, where the run is resumed and the evaluation of its position was due and has not finished.

        That is before hooks change from what was saved to what is trained, as those do that average weights.
        """
        is_resumed, self._is_resumed = self._is_resumed, False
        number = self._number(runner)
        if not is_resumed or self._last == number or not self._was_due(runner, number):
            return None
        self.initial_flag = False  # this is the evaluation before the training, too
        part = self._do_evaluate(runner, {"epoch": runner.epoch, "iter": runner.iter})
        kind = "epoch" if self.by_epoch else "iteration"
        runner.logger.info(
            "made up for the evaluation after %s %d: %s", kind, number, dict(self.latest_metrics)
        )
        return part

    def _number(self, runner: Any) -> int:
        return int(runner.epoch if self.by_epoch else runner.iter)

    def _was_due(self, runner: Any, number: int) -> bool:
        if not number or (self.by_epoch and not runner.by_epoch):  # such a runner ends one epoch alone
            return False
        self._schedule.advance(number)
        return self._schedule.is_due(number)

    def _begin(self, runner: Any) -> None:
        """Forget the evaluations of another run."""
        if self._last is not None and self._last > self._number(runner):
            self._last = None
