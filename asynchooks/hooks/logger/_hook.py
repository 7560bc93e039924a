"""When a run says something, and to whom: the terminal, a text file, its visualizer, a remote copy.

On the training thread it only takes a frozen record of what the log processor needs; numbers are read from their
device, formatted and written in the background, in the order in which they were taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from asynchooks.data import length_of
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks.logger import _copies, _options
from asynchooks.hooks.logger._writer import Entry, Writer
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["LoggerHook"]


@HOOKS.register_module()
class LoggerHook(Hook):
    """Logs the message hub's scalars every so many iterations, and the metrics of each validation and test.

    Text goes to the run's logger and to ``{timestamp}.log`` in its ``log_dir``; numbers to ``runner.visualizer``, by
    default ``vis_data/scalars.json`` and ``vis_data/{timestamp}.json``; the results of tests to ``{timestamp}.json``
    too, a line for each. A run without a visualizer has one made for it here, with the backends that ``sinks`` name.
    Without a folder, a run logs to the terminal alone. Without a hook that hands outputs and metrics to the message
    hub (RuntimeInfoHook), this one does.

    Args:
        interval: iterations between two lines, counted inside each epoch.
        ignore_last: whether the last iterations of an epoch, fewer than ``interval``, go without a line.
        interval_exp_name: iterations between two mentions of the experiment's name; it is named at the end of
            each epoch too. -1 for no others.
        out_dir: folder or URL to which the log files are copied, every ``sync_interval_s`` and at the end of a
            run, also of one that fails; the name of the run's folder is appended.
        out_suffix: endings of the files that are copied.
        keep_local: whether the local files stay after the last copy.
        file_client_args: old name of ``backend_args``.
        log_metric_by_epoch: whether the metrics of a validation are filed under the epoch (else the iteration).
        backend_args: fsspec's options for ``out_dir``.
        sinks: "terminal" (the run's logger), "text"; "json" and "tensorboard" for numbers, where the visualizer has
            no such backend. None is terminal, text and, without a visualizer, json.
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
        sinks: Sequence[str] | None = None,
        sync_interval_s: float = 60.0,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "warn",
        **unknown: Any,
    ) -> None:
        _options.reject_unknown(unknown, LoggerHook)
        _options.check_flags(
            ignore_last=ignore_last, keep_local=keep_local, log_metric_by_epoch=log_metric_by_epoch
        )
        self.interval = _options.check_count("interval", interval, least=1)
        self.interval_exp_name = _options.check_count("interval_exp_name", interval_exp_name, least=-1)
        self.ignore_last = ignore_last
        self.log_metric_by_epoch = log_metric_by_epoch
        self.sinks = _options.check_sinks(sinks)
        self.when_busy = when_busy
        self.on_error = on_error
        self.effects = Effects(writes=_options.resources(self.sinks, is_mirrored=out_dir is not None))
        self._mirror = _options.mirror_of(
            out_dir,
            out_suffix,
            backend_args,
            file_client_args,
            keep_local=keep_local,
            interval_s=sync_interval_s,
        )
        self._writer: Writer | None = None
        self._described: Any = None
        self._has_begun = self._hands_over = False
        self._length: int | None = None
        self._start = self._val_batches = 0

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Record the configuration that the run comes from, once."""
        self._writer, self._has_begun = None, False  # a run that failed has left its own
        cfg = getattr(runner, "cfg", None)
        if cfg is None or cfg is self._described:
            return None
        self._described = cfg
        return partial(self._writer_of(runner).describe, _copies.plain_config(cfg))

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Log, where a line is due; where none is, this is a few sums."""
        if batch_idx == 0 or not self._has_begun:
            self._begin(runner, batch_idx)
        if self._hands_over:
            _copies.hand_over(runner.message_hub, "train", outputs)
        done = batch_idx + 1
        is_last = done == self._length
        is_due = done % self.interval == 0 or (is_last and (not self.ignore_last or done <= self.interval))
        every = self.interval_exp_name
        names_run = is_last or (every > 0 and (self._start + done) % every == 0)
        if not is_due and not names_run:
            return None
        if self._hands_over and runner.optim_wrapper is not None:
            rates = {name: value[0] for name, value in runner.optim_wrapper.get_lr().items()}
            _copies.hand_over(runner.message_hub, "train", rates)
        record = runner.log_processor.capture(runner, batch_idx, "train") if is_due else None
        preface = _copies.name_of(runner) if names_run else None
        return self._writing(runner, Entry("train", runner.iter + 1, record, preface))

    @background
    def _after_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "val"
    ) -> BackgroundPart | None:
        """Say how far a validation or test is, where a line is due; such lines are text alone."""
        self._val_batches = batch_idx + 1
        if self._val_batches % self.interval:
            return None
        record = runner.log_processor.capture(runner, batch_idx, mode)
        return self._writing(runner, Entry(mode, runner.iter, record, is_filed=False))

    @background
    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart:
        """Log the metrics of a validation."""
        step = runner.epoch if self.log_metric_by_epoch else runner.iter
        return self._summary(runner, "val", step, metrics)

    @background
    def after_test_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart:
        """Log the metrics of a test, and add all its results to ``{timestamp}.json``."""
        return self._summary(runner, "test", runner.iter, metrics)

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Bring the remote copy up to date. The next run finds its files anew."""
        writer = self._writer_of(runner)
        self._writer, self._has_begun = None, False
        return writer.finish

    def close(self) -> None:
        """Close the files of a run that failed, and bring the remote copy up to date."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _begin(self, runner: Any, batch_idx: int) -> None:
        """Look once per epoch at what does not change inside of it."""
        self._has_begun = True
        self._hands_over = _copies.is_alone()
        self._length = length_of(runner.train_dataloader)
        self._start = runner.iter - batch_idx

    def _summary(
        self, runner: Any, mode: str, step: int, metrics: Mapping[str, Any] | None
    ) -> BackgroundPart:
        if _copies.is_alone():
            _copies.hand_over(runner.message_hub, mode, metrics)
        batches, self._val_batches = self._val_batches, 0
        record = runner.log_processor.capture(runner, max(batches - 1, 0), mode, is_summary=True)
        results = _copies.tested(runner.message_hub) if mode == "test" else {}
        return self._writing(runner, Entry(mode, step, record, results=results))

    def _writing(self, runner: Any, entry: Entry) -> BackgroundPart:
        return partial(self._writer_of(runner).write, entry)

    def _writer_of(self, runner: Any) -> Writer:
        if self._writer is None:
            self._writer = Writer.of(runner, self.sinks, self._mirror)
        return self._writer
