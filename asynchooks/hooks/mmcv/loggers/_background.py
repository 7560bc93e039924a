"""`BackgroundLogger`: a logger that takes a record on the training thread and writes it in the background."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

from asynchooks.execution import background
from asynchooks.hooks.mmcv.loggers._base import LoggerHook
from asynchooks.hooks.mmcv.loggers._parts import in_thread
from asynchooks.hooks.mmcv.loggers._record import Record, frozen

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["BackgroundLogger"]


class BackgroundLogger(LoggerHook):
    """Base of the built-in loggers; the first rank alone writes, lines in their order, in worker threads.

    Its methods are captures: one that overrides them returns what it gets from ``super()``.
    """

    _is_finished = _has_failed = False

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Begin anew; only the first rank will have something to close."""
        self._is_finished, self._has_failed = runner.rank != 0, False
        return super().before_run(runner)

    def log(self, runner: Any) -> BackgroundPart | None:
        """Return what logs what the log buffer's ``output`` holds."""
        return self._said(runner, None)

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Write what is held back, and close; another run opens again."""
        return in_thread(self._finish_once) if runner.rank == 0 else None

    def close(self) -> None:
        """Write what is held back, and close, after a run that failed; services that show it are told."""
        self._has_failed = True
        self._finish_once()

    def _said(self, runner: Any, window: int | None) -> BackgroundPart | None:
        extra = self._extra(runner)  # on every rank: it may be a collective
        if runner.rank != 0:
            return None
        return in_thread(partial(self._write, self._record(runner, window, extra)))

    def _record(self, runner: Any, window: int | None, extra: Any) -> Record:
        buffer = runner.log_buffer
        output, ready = frozen(buffer.output)
        return Record(
            mode=self.get_mode(runner),
            epoch=self.get_epoch(runner),
            iter=self.get_iter(runner),
            inner_iter=self.get_iter(runner, inner_iter=True),
            output=output,
            averages=None if window is None else buffer.capture(window),
            rates={**self.get_lr_tags(runner), **self.get_momentum_tags(runner)},
            extra=extra,
            ready=ready,
        )

    def _extra(self, runner: Any) -> Any:
        """Return what this logger needs of the run besides. Training thread, on every rank."""

    @abstractmethod
    def _write(self, record: Record) -> None:
        """Write a record. In a worker thread, in the order of the records."""

    def _finish_once(self) -> None:
        """`_finish`, unless this run has done so."""
        is_finished, self._is_finished = self._is_finished, True
        if not is_finished:
            self._finish()

    def _finish(self) -> None:
        """Write what is held back, and close. After the last record; in a worker thread, where the run ended well."""
