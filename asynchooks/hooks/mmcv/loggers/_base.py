"""`LoggerHook`: when a line of a log is due, in MMCV's manner."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from asynchooks.errors import ConfigError
from asynchooks.execution import RunnerHook, background
from asynchooks.hooks.mmcv.loggers import _record

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["LoggerHook"]


class LoggerHook(RunnerHook):
    """Base of loggers: says when, and what there is; a logger overrides `log`.

    A line is due every ``interval`` training iterations, with the averages of so many; when something else has made
    the log buffer ready, such as an evaluation; and after each validation. Loggers of different intervals do not
    move each other. (In MMCV a logger writes whenever one before it does, and clears what later ones need.)

    Args:
        interval: iterations between two lines, counted inside each epoch where epochs are counted.
        ignore_last: whether the last iterations of an epoch, fewer than ``interval``, go without a line.
        reset_flag: whether the log buffer's output is forgotten after a line; the last logger does so in any case.
        by_epoch: whether epochs are counted.

    Raises:
        ConfigError, TypeError: ``interval`` is no positive int.
    """

    priority = "VERY_LOW"
    changes_state = False
    on_error = "warn"

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int):
            raise TypeError(f"{type(self).__name__}(interval={interval!r}): give a number of iterations.")
        if interval < 1:
            raise ConfigError(f"{type(self).__name__}(interval={interval}): give at least 1 iteration.")
        self.interval = interval
        self.ignore_last = ignore_last
        self.reset_flag = reset_flag
        self.by_epoch = by_epoch
        self._is_average = False  # of the line that is made: whether it has averages of the training
        self._flushed: int | None = None  # the iteration whose line was written before its end

    @abstractmethod
    def log(self, runner: Any) -> Any:
        """Log what the log buffer's ``output`` holds. Training thread; it may return an async function, which then
        runs in the background; anything else that it returns is dropped."""  # noqa: D205, D209

    @staticmethod
    def is_scalar(
        val: Any,
        include_np: bool = True,  # noqa: FBT001, FBT002
        include_torch: bool = True,  # noqa: FBT001, FBT002
    ) -> bool:
        """Whether a value is one number; tensors without dimensions are (MMCV raises TypeError for them)."""
        return _record.is_scalar(val, include_np=include_np, include_torch=include_torch)

    def get_mode(self, runner: Any) -> str:
        """Return "train" for what is said of the training, "val" for the results of a validation.

        Raises:
            ValueError: the runner is in another mode.
        """
        if runner.mode not in ("train", "val"):
            raise ConfigError(f"The mode of a runner that logs is 'train' or 'val', not {runner.mode!r}.")
        of_training = self._is_average or "time" in runner.log_buffer.output
        return "train" if runner.mode == "train" and of_training else "val"

    def get_epoch(self, runner: Any) -> int:
        """Return the epoch that runs or, in a validation, the one that has ended, counted from 1."""
        return int(runner.epoch) + int(runner.mode == "train")

    def get_iter(self, runner: Any, inner_iter: bool = False) -> int:  # noqa: FBT001, FBT002
        """Return the training iteration, counted from 1; that inside of its epoch where it is asked for."""
        return 1 + int(runner.inner_iter if self.by_epoch and inner_iter else runner.iter)

    def get_lr_tags(self, runner: Any) -> dict[str, float]:
        """Return the first group's learning rate, of each optimizer."""
        return _record.rate_tags("learning_rate", runner.current_lr())

    def get_momentum_tags(self, runner: Any) -> dict[str, float]:
        """Return the first group's momentum, of each optimizer."""
        return _record.rate_tags("momentum", runner.current_momentum())

    def get_loggable_tags(
        self,
        runner: Any,
        allow_scalar: bool = True,  # noqa: FBT001, FBT002
        allow_text: bool = False,  # noqa: FBT001, FBT002
        add_mode: bool = True,  # noqa: FBT001, FBT002
        tags_to_skip: tuple[str, ...] = ("time", "data_time"),
    ) -> dict[str, Any]:
        """Return what is logged, by its tag, with learning rates and momenta."""
        prefix = f"{self.get_mode(runner)}/" if add_mode else ""
        tags = _record.loggable(
            runner.log_buffer.output,
            prefix=prefix,
            allow_scalar=allow_scalar,
            allow_text=allow_text,
            skip=tags_to_skip,
        )
        return {**tags, **self.get_lr_tags(runner), **self.get_momentum_tags(runner)}

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Note whether this is the last logger."""
        last = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)][-1:]
        if last == [self]:
            self.reset_flag = True
        self._flushed = None
        return None

    @background
    def before_epoch(self, runner: Any) -> BackgroundPart | None:
        """Forget the numbers of the last epoch. A capture: it does not wait for lines that are being written."""
        runner.log_buffer.clear()
        return None

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Log, where a line is due."""
        is_due = self._is_due(runner) and self._flushed != runner.iter
        return self._line(runner, self.interval if is_due else None)

    @background
    def flush_log(self, runner: Any) -> BackgroundPart | None:
        """Log what is due of the iteration that runs, before an evaluation's results mix with it."""
        part = self._line(runner, self.interval if self._is_due(runner) else None)
        self._flushed = runner.iter
        return part

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Log, where something else has results."""
        return self._line(runner, None)

    @background
    def after_val_epoch(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Log the averages of a validation."""
        return self._line(runner, 0)

    def _is_due(self, runner: Any) -> bool:
        if self.by_epoch and self.every_n_inner_iters(runner, self.interval):
            return True
        if not self.by_epoch and self.every_n_iters(runner, self.interval):
            return True
        return not self.ignore_last and self.end_of_epoch(runner)

    def _line(self, runner: Any, window: int | None) -> BackgroundPart | None:
        """Return what writes a line with the averages of the newest ``window`` values (all for 0, None for none)."""
        if window is None and not runner.log_buffer.ready:
            return None
        self._is_average = window is not None
        part = self._said(runner, window)
        if self.reset_flag:
            runner.log_buffer.clear_output()
        return part

    def _said(self, runner: Any, window: int | None) -> BackgroundPart | None:
        """Have `log` find the averages in the log buffer's output, and nobody after it."""
        buffer = runner.log_buffer
        averages = {} if window is None else buffer.capture(window).read()
        own = {name: value for name, value in averages.items() if name not in buffer.output}
        buffer.output.update(own)
        part = self.log(runner)
        for name in own:
            buffer.output.pop(name, None)
        return part if callable(part) else None
