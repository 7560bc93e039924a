"""Ends a training whose validations have stopped to get better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from asynchooks.errors import ConfigError, UnknownNameError, did_you_mean
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS
from asynchooks.scores import Rules, improves

__all__ = ["EarlyStoppingHook"]


@HOOKS.register_module()
class EarlyStoppingHook(Hook):
    """Stops when a metric has not become better for a while; counts validations, through a resume too.

    A Runner's training ends at the next epoch (or iteration) boundary. A loop of one's own reads ``should_stop``.
    Validations outside of a training count nothing.

    Args:
        monitor: the metric.
        rule: "greater", "less", or None: what its name suggests.
        min_delta: a score that is not at least this much better than the best one is no improvement.
        strict: whether a validation without the metric is an error; else it is a warning and counts nothing.
        check_finite: whether NaN and infinity stop at once. Otherwise NaN is no improvement.
        patience: validations in a row without improvement after which the training stops.
        stopping_threshold: stop at once when a score is better than this.

    Attributes:
        wait_count: validations in a row without improvement.
        best_score: the best score so far; infinite before the first.
        should_stop: whether the training is to end.

    Raises:
        ConfigError, TypeError, UnknownNameError: a wrong value, or a name that suggests no rule.
    """

    priority = "LOWEST"
    effects = Effects()
    changes_state = False

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.1,
        strict: bool = False,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        check_finite: bool = True,  # noqa: FBT001, FBT002
        patience: int = 5,
        stopping_threshold: float | None = None,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"EarlyStoppingHook(monitor={monitor!r}): give the name of one metric.")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ConfigError(f"EarlyStoppingHook(patience={patience!r}): give an int >= 0, of validations.")
        if not isinstance(min_delta, int | float) or math.isnan(min_delta):
            raise ConfigError(f"EarlyStoppingHook(min_delta={min_delta!r}): give a number.")
        self.monitor = monitor
        self.rule = Rules.checked("EarlyStoppingHook", "monitor", rule).of([monitor])[0]
        self.min_delta = min_delta
        self.strict = strict
        self.check_finite = check_finite
        self.patience = patience
        self.stopping_threshold = stopping_threshold
        self._forget()
        self.should_stop = False
        self._is_training = True  # a loop of one's own may say nothing before its first validation
        self._is_awaited = False  # whether a validation runs that is not judged yet
        self._is_judged = False  # whether it was judged before its turn, for a save

    def _forget(self) -> None:
        self.wait_count = 0
        self.best_score = -math.inf if self.rule == "greater" else math.inf

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on counting from."""
        return {"wait_count": self.wait_count, "best_score": self.best_score}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self.wait_count = int(state["wait_count"])
        self.best_score = float(state["best_score"])

    def before_run(self, runner: Any) -> None:
        """A validation or test on its own is no part of a training, and needs no training loop."""
        del runner
        self._is_training = False

    def before_train(self, runner: Any) -> None:
        """Check that the training can be stopped.

        Raises:
            ConfigError: the training loop has no ``stop_training``.
        """
        self._is_training = True
        self._is_awaited = self._is_judged = False
        self.should_stop = False
        if getattr(runner, "iter", None) == 0:  # the hook may have served another training
            self._forget()
        loop = getattr(runner, "train_loop", None)
        if loop is not None and not hasattr(loop, "stop_training"):
            raise ConfigError(
                f"EarlyStoppingHook: {type(loop).__name__} has no attribute stop_training, by which a training is "
                f"ended."
            )

    def before_val_epoch(self, runner: Any) -> None:
        """A validation begins, whose metrics are to be judged."""
        del runner
        self._is_awaited = True

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Judge a validation now whose checkpoint is saved before this hook's turn: a resumed run repeats it not."""
        del checkpoint
        loop = getattr(runner, "train_loop", None) if self._is_training and self._is_awaited else None
        if getattr(loop, "validation_pending", True):
            return  # its metrics are not there yet, or the loop does not say
        self._is_awaited, self._is_judged = False, True
        self._take_in(runner, runner.metrics)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Judge the metric, and stop the training where it is time.

        Raises:
            UnknownNameError: (a KeyError) with ``strict``, the validation has no such metric.
        """
        is_judged, self._is_judged, self._is_awaited = self._is_judged, False, False
        if self._is_training and not is_judged:
            self._take_in(runner, metrics)

    def _take_in(self, runner: Any, metrics: Mapping[str, Any] | None) -> None:
        value = (metrics or {}).get(self.monitor)
        if value is None:
            self._miss(runner, metrics or {})
            return
        reason = self._judge(float(value))
        if reason is not None:
            self.should_stop = True
            if getattr(runner, "train_loop", None) is not None:
                runner.train_loop.stop_training = True
            runner.logger.info("EarlyStoppingHook: %s", reason)

    def after_train(self, runner: Any) -> None:
        """The training is over."""
        del runner
        self._is_training = False

    def _judge(self, score: float) -> str | None:
        """Take a score in; return why the training is to end, or None."""
        if self.check_finite and not math.isfinite(score):
            return f"{self.monitor} is {score}; its best was {self.best_score:.3f}."
        threshold = self.stopping_threshold
        if threshold is not None and improves(self.rule, score, threshold):
            self.best_score = score
            return f"{self.monitor} is {score}, {self.rule} than the threshold {threshold}."
        if self._is_progress(score):
            self.best_score, self.wait_count = score, 0
            return None
        self.wait_count += 1
        if self.wait_count < self.patience:
            return None
        return (
            f"{self.monitor} has not become better in the last {self.wait_count} validations; its best is "
            f"{self.best_score:.3f}."
        )

    def _is_progress(self, score: float) -> bool:  # NaN never is
        if self.rule == "greater":
            return score >= self.best_score + self.min_delta
        return score <= self.best_score - self.min_delta

    def _miss(self, runner: Any, metrics: Mapping[str, Any]) -> None:
        message = (
            f"EarlyStoppingHook(monitor={self.monitor!r}): the validation has no such metric."
            f"{did_you_mean(self.monitor, metrics)} It has {', '.join(metrics) or 'none'}."
        )
        if self.strict:
            raise UnknownNameError(message)
        runner.logger.warning("%s", message)
