"""When a run says something, and to whom: the terminal, JSON lines, TensorBoard, a remote copy.

On the training thread it only takes a frozen record of what the log processor needs; numbers are read from their
device, formatted and written in the background, in the order in which they were taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import Mirror, store_options
from asynchooks.execution import Effects, Hook, background, current_executor
from asynchooks.hooks.logger import _options
from asynchooks.hooks.logger._writer import Entry, Writer
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["LoggerHook"]


@HOOKS.register_module()
class LoggerHook(Hook):
    """Logs the message hub's scalars every so many iterations, and the metrics of each validation and test.

    Files are written below the run's ``log_dir``: ``{timestamp}.log``, ``{timestamp}.json``, and TensorBoard's event
    file in ``tensorboard``. A run without such a folder logs to the terminal alone. Without a hook that hands
    outputs and metrics to the message hub (RuntimeInfoHook), this one does.

    Args:
        interval: iterations between two lines, counted inside each epoch.
        ignore_last: whether the last iterations of an epoch, fewer than ``interval``, go without a line.
        interval_exp_name: iterations between two mentions of the experiment's name; it is named at the end of
            each epoch too. -1 for no others.
        out_dir: folder or URL to which the log files are copied, every ``sync_interval_s`` and at the end of a
            run (``after_run``); the name of the run's folder is appended.
        out_suffix: endings of the files that are copied.
        keep_local: whether the local files stay after the last copy.
        file_client_args: old name of ``backend_args``.
        log_metric_by_epoch: whether the metrics of a validation are filed under the epoch (else the iteration).
        backend_args: fsspec's options for ``out_dir``.
        sinks: of "terminal" (the run's logger), "text", "json" and "tensorboard".
        sync_interval_s: seconds between two copies to ``out_dir``.
        when_busy: what happens to a line when there is no room in the background: "wait", "skip" or "coalesce".
        on_error: what a failed write does: "warn", or "raise" in the training thread.

    Raises:
        ConfigError: a wrong value, or "tensorboard" without the package.
        UnknownOptionError: an argument, a sink or an option of the store that there is not.
        TypeError: a value of the wrong type.
    """

    priority = "BELOW_NORMAL"
    changes_state = False

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        interval_exp_name: int = 1000,
        out_dir: str | os.PathLike[str] | None = None,
        out_suffix: str | Sequence[str] = (".json", ".log", ".py", "yaml"),
        keep_local: bool = True,  # noqa: FBT001, FBT002
        file_client_args: Mapping[str, Any] | None = None,
        log_metric_by_epoch: bool = True,  # noqa: FBT001, FBT002
        backend_args: Mapping[str, Any] | None = None,
        *,
        sinks: Sequence[str] = ("terminal", "text", "json"),
        sync_interval_s: float = 60.0,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "warn",
        **unknown: Any,
    ) -> None:
        _options.reject_unknown(unknown, LoggerHook)
        self.interval = _options.check_count("interval", interval, least=1)
        self.interval_exp_name = _options.check_count("interval_exp_name", interval_exp_name, least=-1)
        self.ignore_last = ignore_last
        self.log_metric_by_epoch = log_metric_by_epoch
        self.sinks = _options.check_sinks(sinks)
        self.when_busy = when_busy
        self.on_error = on_error
        self.effects = Effects(writes=_options.resources(self.sinks, remote=out_dir is not None))
        self._mirror: Mirror | None = None
        if out_dir is not None:
            self._mirror = Mirror(
                _options.check_out_dir(out_dir),
                suffixes=_options.check_suffixes(out_suffix),
                options=store_options("LoggerHook", backend_args, file_client_args),
                keep_local=keep_local,
                interval_s=sync_interval_s,
            )
        elif not keep_local:
            raise _options.nowhere_to_keep()
        self._writer: Writer | None = None
        self._hands_over: bool | None = None
        self._loader: object = None
        self._length: int | None = None
        self._val_batches = 0

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Log, where a line is due."""
        del data_batch
        if self._hands_over is not False and self._is_alone(runner):
            _hand_over(runner.message_hub, "train", outputs)
        done = batch_idx + 1
        loader = runner.train_dataloader
        if loader is not self._loader:
            self._loader, self._length = loader, _length(loader)
        is_last = done == self._length
        is_due = done % self.interval == 0 or (is_last and (not self.ignore_last or done <= self.interval))
        names_run = is_last or (
            self.interval_exp_name > 0 and (runner.iter + 1) % self.interval_exp_name == 0
        )
        if not is_due and not names_run:
            return None
        if self._hands_over and runner.optim_wrapper is not None:
            _hand_over(
                runner.message_hub, "train", {k: v[0] for k, v in runner.optim_wrapper.get_lr().items()}
            )
        return self._writing(
            runner,
            Entry(
                mode="train",
                step=runner.iter + 1,
                record=runner.log_processor.capture(runner, batch_idx, "train") if is_due else None,
                preface=_experiment(runner) if names_run else None,
            ),
        )

    @background
    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Say how far the validation is, where a line is due; such lines go to the terminal alone."""
        del data_batch, outputs
        self._val_batches = batch_idx + 1
        return self._position(runner, batch_idx, "val")

    @background
    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Say how far the test is, where a line is due; such lines go to the terminal alone."""
        del data_batch, outputs
        self._val_batches = batch_idx + 1
        return self._position(runner, batch_idx, "test")

    @background
    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart:
        """Log the metrics of a validation."""
        step = runner.epoch if self.log_metric_by_epoch else runner.iter
        return self._summary(runner, "val", step, metrics)

    @background
    def after_test_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart:
        """Log the metrics of a test."""
        return self._summary(runner, "test", runner.iter, metrics)

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Bring the remote copy up to date. The next run finds its files anew."""
        writer = self._writer_of(runner)
        self._writer = None
        self._hands_over = None
        return writer.finish

    def _position(self, runner: Any, batch_idx: int, mode: str) -> BackgroundPart | None:
        if (batch_idx + 1) % self.interval:
            return None
        record = runner.log_processor.capture(runner, batch_idx, mode)
        return self._writing(runner, Entry(mode, runner.iter, record, is_filed=False))

    def _summary(
        self, runner: Any, mode: str, step: int, metrics: Mapping[str, Any] | None
    ) -> BackgroundPart:
        if self._is_alone(runner):
            _hand_over(runner.message_hub, mode, metrics)
        batches, self._val_batches = self._val_batches, 0
        record = runner.log_processor.capture(runner, max(batches - 1, 0), mode, is_summary=True)
        return self._writing(runner, Entry(mode, step, record))

    def _writing(self, runner: Any, entry: Entry) -> BackgroundPart:
        writer = self._writer_of(runner)

        async def write() -> None:
            await writer.write(entry)

        return write

    def _writer_of(self, runner: Any) -> Writer:
        if self._writer is None:
            self._writer = Writer.of(runner, self.sinks, self._mirror)
        return self._writer

    def _is_alone(self, runner: Any) -> bool:
        """Whether no other hook hands outputs and metrics to the message hub."""
        if self._hands_over is None:
            del runner
            executor = current_executor()
            hooks = executor.hooks if executor is not None else ()
            self._hands_over = executor is not None and not any(
                base.__name__ == "RuntimeInfoHook" for hook in hooks for base in type(hook).__mro__
            )
        return self._hands_over


def _hand_over(hub: Any, mode: str, values: Any) -> None:
    if values is None:
        return
    for name, value in values.items() if isinstance(values, Mapping) else (("loss", values),):
        if isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1):
            hub.update_scalar(f"{mode}/{name}", value)


def _experiment(runner: Any) -> str | None:
    name = getattr(runner, "experiment_name", None)
    return f"Exp name: {name}" if name else None


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # no loader, or one without a length
        return None
