"""Loggers that hand numbers to a service and do nothing else: ClearML, Neptune, Segmind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._parts import in_thread
from asynchooks.hooks.mmcv.loggers._record import Record
from asynchooks.registry import MMCV_HOOKS
from asynchooks.visualization import ClearMLVisBackend, NeptuneVisBackend, check_package, numbers_by_name

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["ClearMLLoggerHook", "NeptuneLoggerHook", "SegmindLoggerHook"]


@MMCV_HOOKS.register_module()
class ClearMLLoggerHook(BackgroundLogger):
    """Writes to a task of ClearML.

    Args:
        init_kwargs: arguments of ``clearml.Task.init``.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.

    Raises:
        ConfigError: clearml is not installed. TypeError: a wrong type.
    """

    effects = Effects(writes={"logs.clearml"})

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self._backend = ClearMLVisBackend(None, init_kwargs, ())

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the task."""
        super().before_run(runner)
        return in_thread(lambda: self._backend.experiment) if runner.rank == 0 else None

    def _write(self, record: Record) -> None:
        self._backend.add_scalars(record.tags(), record.iter)

    def _finish(self) -> None:
        self._backend.close()


@MMCV_HOOKS.register_module()
class NeptuneLoggerHook(BackgroundLogger):
    """Writes to a run of Neptune.

    Args:
        init_kwargs: arguments of ``neptune.init_run``. A token belongs into the environment, NEPTUNE_API_TOKEN.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.
        with_step: whether numbers have the iteration as their step; else Neptune counts, and the iteration is a
            number of its own, ``global_step``.

    Raises:
        ConfigError: neptune is not installed. TypeError: a wrong type.
    """

    effects = Effects(writes={"logs.neptune"})

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = True,  # noqa: FBT001, FBT002
        with_step: bool = True,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.with_step = with_step
        self._backend = NeptuneVisBackend(None, {} if init_kwargs is None else init_kwargs)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the run."""
        super().before_run(runner)
        return in_thread(lambda: self._backend.experiment) if runner.rank == 0 else None

    def _write(self, record: Record) -> None:
        numbers = numbers_by_name(record.tags())
        if self.with_step:
            self._backend.add_scalars(numbers, record.iter)
            return
        for name, number in {**numbers, "global_step": record.iter}.items():
            self._backend.add_value(name, number)

    def _finish(self) -> None:
        self._backend.close()


@MMCV_HOOKS.register_module()
class SegmindLoggerHook(BackgroundLogger):
    """Writes to Segmind, under epochs.

    Args:
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.

    Raises:
        ConfigError: segmind is not installed.
    """

    effects = Effects(writes={"logs.segmind"})

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        check_package("SegmindLoggerHook", "segmind")
        super().__init__(interval, ignore_last, reset_flag, by_epoch)

    def _extra(self, runner: Any) -> int:
        return int(runner.epoch)

    def _write(self, record: Record) -> None:
        segmind = import_module("segmind")
        segmind.utils.logging_utils.try_mlflow_log(
            segmind.tracking.fluent.log_metrics,
            numbers_by_name(record.tags()),
            step=record.extra,
            epoch=record.extra,
        )
