"""`TensorboardLoggerHook`: scalars and texts for TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._record import Record
from asynchooks.registry import MMCV_HOOKS
from asynchooks.visualization import TensorboardVisBackend

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["TensorboardLoggerHook"]


@MMCV_HOOKS.register_module()
class TensorboardLoggerHook(BackgroundLogger):
    """Writes one event file.

    Args:
        log_dir: folder of the event file; ``tf_logs`` in the run's folder where it is left out.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.

    Raises:
        ConfigError: tensorboard is not installed, or the run has no local folder.
    """

    effects = Effects(writes={"logs.tensorboard"})

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.log_dir = log_dir
        self._backend = TensorboardVisBackend(log_dir)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Choose the folder."""
        super().before_run(runner)
        if self.log_dir is None and runner.work_dir is not None:
            folder = os.fspath(Path(runner.work_dir, "tf_logs"))
            if self._backend.save_dir != folder:
                self._backend = TensorboardVisBackend(folder)
        return None

    def _write(self, record: Record) -> None:
        tags = record.tags(allow_text=True)
        self._backend.add_scalars(tags, record.iter)
        for tag, value in tags.items():
            if isinstance(value, str):
                self._backend.experiment.add_text(tag, value, record.iter)

    def _finish(self) -> None:
        self._backend.close()
