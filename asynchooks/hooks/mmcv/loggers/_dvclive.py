"""`DvcliveLoggerHook`: numbers for DVCLive, and the newest model under one name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import Checkpointer
from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._record import Record, loggable
from asynchooks.registry import MMCV_HOOKS, check_handed_on
from asynchooks.visualization import DVCLiveVisBackend

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["DvcliveLoggerHook"]


@MMCV_HOOKS.register_module()
class DvcliveLoggerHook(BackgroundLogger):
    """Writes through ``dvclive.Live``: once an epoch where epochs are counted, else every ``interval`` iterations.

    A line of an epoch has the averages of its training. (MMCV's has none: nothing averages them for it.)

    Args:
        model_file: where the newest checkpoint is saved after each epoch, in the background, whole or not at all.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.
        dvclive: a ``Live`` of the caller's, who ends it.
        kwargs: arguments of ``Live``.

    Raises:
        ConfigError: dvclive is not installed.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str] | None = None,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        dvclive: Any = None,
        **kwargs: Any,
    ) -> None:
        check_handed_on(type(self), kwargs)
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.model_file = None if model_file is None else Path(model_file)
        self._backend = DVCLiveVisBackend(artifact_suffix=(), init_kwargs=kwargs, live=dvclive)
        checkpoints = set() if model_file is None else {"checkpoints"}
        self.effects = Effects(writes={"logs.dvclive", *checkpoints})

    @background
    def after_train_iter(self, runner: Any) -> BackgroundPart | None:  # type: ignore[override]
        """Log, where iterations are counted and a line is due."""
        return None if self.by_epoch else super().after_train_iter(runner)

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Save the model, and log what the epoch has brought where epochs are counted."""
        save = self._saving(runner)
        line = self._line(runner, 0 if self.by_epoch else None)
        if save is None or line is None:
            return save or line

        async def save_and_log() -> None:
            await save()
            await line()

        return save_and_log

    def _saving(self, runner: Any) -> BackgroundPart | None:
        """Return what saves the model. In a distributed run every rank captures, and the first one saves."""
        path = self.model_file
        if path is None or runner.rank != 0:
            return None
        epoch, iteration = runner.epoch + 1, runner.iter
        snapshot = runner.capture(meta={"epoch": epoch, "iter": iteration})
        run_id = runner.message_hub.get_info("run_id")

        async def save() -> None:
            checkpointer = Checkpointer(path.parent, run_id=run_id)
            await checkpointer.save(snapshot, name=path.name, step=iteration, epoch=epoch)

        return save

    def _write(self, record: Record) -> None:
        if not self.by_epoch:
            self._backend.add_scalars(record.tags(), record.iter)
            return
        training = loggable(record.read_averages(), prefix=f"{record.mode}/")
        evaluation = loggable(record.read_output(), prefix="val/")
        self._backend.add_scalars({**training, **evaluation, **record.rates}, record.epoch)

    def _finish(self) -> None:
        self._backend.close()
