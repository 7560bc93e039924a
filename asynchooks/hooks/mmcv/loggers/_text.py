"""`TextLoggerHook`: lines for the terminal and lines of JSON, and their copy elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import Mirror, store_options
from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._lines import Place, json_line, text_line
from asynchooks.hooks.mmcv.loggers._memory import max_memory
from asynchooks.hooks.mmcv.loggers._parts import in_thread
from asynchooks.hooks.mmcv.loggers._record import EVAL_ITERS, Record
from asynchooks.registry import MMCV_HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["TextLoggerHook"]


@MMCV_HOOKS.register_module()
class TextLoggerHook(BackgroundLogger):
    """Writes lines to the run's logger, and ``{timestamp}.log.json`` in the run's folder.

    The time left counts every iteration since the start, also those without a line. (MMCV forgets them.)

    Args:
        by_epoch: whether epochs are counted.
        interval: iterations between two lines.
        ignore_last: whether the last iterations of an epoch, fewer than ``interval``, go without a line.
        reset_flag: whether the log buffer's output is forgotten after a line.
        interval_exp_name: iterations between two mentions of the experiment's name; it is named at the end of each
            epoch too. -1 for no others.
        out_dir: folder or URL to which the log files are copied, every ``sync_interval_s`` and at the end of a run,
            also of one that fails; the name of the run's folder is appended.
        out_suffix: endings of the files of the run's folder that are copied.
        keep_local: whether the local files stay after the last copy.
        file_client_args: old name of ``backend_args``.
        backend_args: fsspec's options for ``out_dir``.
        sync_interval_s: seconds between two copies.

    Raises:
        ConfigError, UnknownOptionError, TypeError: a wrong value, or options for a store that there is not.
    """

    def __init__(
        self,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        interval_exp_name: int = 1000,
        out_dir: str | os.PathLike[str] | None = None,
        out_suffix: str | Sequence[str] = (".log.json", ".log", ".py"),
        keep_local: bool = True,  # noqa: FBT001, FBT002
        file_client_args: Mapping[str, Any] | None = None,
        *,
        backend_args: Mapping[str, Any] | None = None,
        sync_interval_s: float = 60.0,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.interval_exp_name = interval_exp_name
        self.out_dir = _checked_out_dir(out_dir)
        self.out_suffix = _checked_suffixes(out_suffix)
        self.keep_local = keep_local
        options = store_options("TextLoggerHook", backend_args, file_client_args)
        if out_dir is None and (options or not keep_local):
            raise ConfigError(
                "TextLoggerHook(backend_args=..., keep_local=False) are about out_dir; give one."
            )
        self._mirror: Mirror | None = None
        if self.out_dir is not None:
            self._mirror = Mirror(
                self.out_dir,
                suffixes=self.out_suffix,
                options=options,
                keep_local=keep_local,
                interval_s=sync_interval_s,
            )
        remote = {"logs.remote"} if self._mirror is not None else set()
        self.effects = Effects(writes={"logs.terminal", "logs.text", "logs.json", *remote})
        self._folder: Path | None = None
        self._path: Path | None = None
        self._logger: Any = None
        self._start = 0  # iterations done before this run
        self._counted = 0  # iterations whose time is known
        self._time_s = 0.0

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Write the notes on the run as the first line of JSON."""
        super().before_run(runner)
        self._logger = runner.logger
        self._start = self._counted = runner.iter
        self._time_s = 0.0
        work_dir = runner.work_dir
        local = work_dir is not None and "://" not in os.fspath(work_dir)
        self._folder = Path(work_dir) if local else None
        self._path = Path(work_dir, f"{runner.timestamp}.log.json") if local else None
        if runner.rank != 0 or runner.meta is None:
            return None
        return in_thread(partial(self._append, json_line(runner.meta)))

    def _said(self, runner: Any, window: int | None) -> BackgroundPart | None:
        write = super()._said(runner, window)
        mirror, folder = self._mirror, self._folder
        if write is None or mirror is None or folder is None:
            return write

        async def write_and_copy() -> None:
            await write()
            await mirror.copy_if_due(folder, folder.absolute().name)

        return write_and_copy

    def _extra(self, runner: Any) -> dict[str, Any]:
        names_run = self.every_n_iters(runner, self.interval_exp_name) or (
            self.by_epoch and self.end_of_epoch(runner)
        )
        return {
            "lr": runner.current_lr(),
            "memory": max_memory(runner) if self.get_mode(runner) == "train" else None,
            "exp_name": (runner.meta or {}).get("exp_name") if names_run else None,
            "of": length_of(runner.data_loader) if self.by_epoch else runner.max_iters,
            "max_iters": runner.max_iters,
        }

    def _write(self, record: Record) -> None:
        values = self._values(record)
        if record.extra["exp_name"] is not None:
            self._logger.info("Exp name: %s", record.extra["exp_name"])
        place = Place(self.by_epoch, record.extra["of"], self._seconds_left(record, values.get("time")))
        self._logger.info(text_line(values, place))
        self._append(json_line(values))

    def _finish(self) -> None:
        """Bring the copy of the log files up to date."""
        if self._mirror is not None and self._folder is not None:
            self._mirror.finish_sync(self._folder, self._folder.absolute().name, self._logger)

    def _values(self, record: Record) -> dict[str, Any]:
        lr, memory = record.extra["lr"], record.extra["memory"]
        read = record.read()
        return {
            "mode": record.mode,
            "epoch": record.epoch,
            "iter": read.pop(EVAL_ITERS, record.inner_iter),
            "lr": {name: each[0] for name, each in lr.items()} if isinstance(lr, Mapping) else lr[0],
            **({} if memory is None else {"memory": int(memory)}),
            **read,
        }

    def _seconds_left(self, record: Record, time_s: float | None) -> float | None:
        if record.mode != "train" or time_s is None or record.extra["max_iters"] is None:
            return None
        self._time_s += time_s * max(record.iter - self._counted, 0)
        self._counted = record.iter
        done = record.iter - self._start
        return self._time_s / done * (record.extra["max_iters"] - record.iter) if done > 0 else None

    def _append(self, line: bytes) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(line)


def _checked_out_dir(out_dir: Any) -> str | None:
    if out_dir is not None and not isinstance(out_dir, str | os.PathLike):
        raise TypeError(f"TextLoggerHook(out_dir={out_dir!r}): give a folder or a URL.")
    return None if out_dir is None else os.fspath(out_dir)


def _checked_suffixes(suffixes: Any) -> tuple[str, ...]:
    endings = (suffixes,) if isinstance(suffixes, str) else suffixes
    if not isinstance(endings, Sequence) or not all(isinstance(each, str) for each in endings):
        raise TypeError(f"TextLoggerHook(out_suffix={suffixes!r}): give an ending such as '.log', or a list.")
    return tuple(endings)
