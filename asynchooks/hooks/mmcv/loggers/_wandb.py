"""`WandbLoggerHook`: numbers for Weights & Biases, and the log files at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._parts import in_thread
from asynchooks.hooks.mmcv.loggers._record import Record
from asynchooks.registry import MMCV_HOOKS
from asynchooks.visualization import WandbVisBackend, files_below, numbers_by_name

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["WandbLoggerHook"]

_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt")


@MMCV_HOOKS.register_module()
class WandbLoggerHook(BackgroundLogger):
    """Writes to a run of W&B: the same one, where the runner runs again.

    Lines of one iteration are one row of W&B's, so that none is dropped for coming second. (In MMCV the first line
    after an evaluation is, with ``interval=1``.)

    Args:
        init_kwargs: arguments of ``wandb.init``.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.
        commit: False collects rows without a step until somebody commits them.
        with_step: whether W&B's step is the iteration; else that stands in ``global_step``.
        log_artifact: whether the log files of the run's folder are uploaded at its end.
        out_suffix: endings of those files.
        define_metric_cfg: summaries by metric.

    Raises:
        ConfigError: wandb is not installed, or a summary that there is not. TypeError: a wrong type.
    """

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        commit: bool = True,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        with_step: bool = True,  # noqa: FBT001, FBT002
        log_artifact: bool = True,  # noqa: FBT001, FBT002
        out_suffix: str | Sequence[str] = (".log.json", ".log", ".py"),
        define_metric_cfg: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.commit = commit
        self.with_step = with_step
        self.log_artifact = log_artifact
        self.out_suffix = (out_suffix,) if isinstance(out_suffix, str) else tuple(out_suffix)
        self._backend = WandbVisBackend(None, init_kwargs, define_metric_cfg)
        self._work_dir: str | None = None
        self.effects = self._touches(checkpoints=False)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the run."""
        super().before_run(runner)
        work_dir = None if runner.work_dir is None else os.fspath(runner.work_dir)
        self._work_dir = None if work_dir is None or "://" in work_dir else work_dir
        if self._backend.save_dir is None:
            self._backend.save_dir = self._work_dir
        return self._opening(runner) if runner.rank == 0 else None

    def _touches(self, *, checkpoints: bool) -> Effects:
        """Return the effects; ``checkpoints``: whether they are read in any case."""
        logs = {"logs.text", "logs.json"} if self.log_artifact else set()
        uploads = self.log_artifact and any(each.endswith(_CHECKPOINT_SUFFIXES) for each in self.out_suffix)
        return Effects(
            reads=logs | ({"checkpoints"} if checkpoints or uploads else set()), writes={"logs.wandb"}
        )

    def _opening(self, runner: Any) -> BackgroundPart:
        """Return what opens the run."""
        del runner
        return in_thread(lambda: self._backend.experiment)

    def _write(self, record: Record) -> None:
        numbers = numbers_by_name(record.tags())
        commit = None if self.commit else False
        if self.with_step:
            self._backend.add_row(numbers, step=record.iter, commit=commit)
        else:
            row = {**numbers, "global_step": record.iter, "step": record.iter}
            self._backend.add_row(row, commit=commit)

    def _finish(self) -> None:
        files = self._log_files() if self.log_artifact else {}
        if files:
            self._backend.add_artifact("artifacts", "model", files)
        self._backend.has_failed = self._has_failed
        self._backend.close()

    def _log_files(self) -> dict[str, Path]:
        """Return the log files of the run by their places in its folder, but those that W&B keeps there itself."""
        folder = self._work_dir
        found = () if folder is None else files_below(folder, self.out_suffix)
        places = {path.relative_to(folder or ".").as_posix(): path for path in found}
        return {place: path for place, path in places.items() if not place.startswith("wandb/")}
