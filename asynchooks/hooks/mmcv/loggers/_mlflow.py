"""`MlflowLoggerHook`: numbers for MLflow, and the model at the end."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from asynchooks.execution import Effects, background
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._parts import copy_on_host, in_thread
from asynchooks.hooks.mmcv.loggers._record import Record
from asynchooks.registry import MMCV_HOOKS
from asynchooks.visualization import MLflowVisBackend, check_package

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart

__all__ = ["MlflowLoggerHook"]


@MMCV_HOOKS.register_module()
class MlflowLoggerHook(BackgroundLogger):
    """Writes to a run of MLflow: the same one, where the runner runs again.

    Args:
        exp_name: name of the experiment, made if there is none.
        tags: tags of the run.
        params: parameters of the run.
        log_model: whether the model is uploaded at the end of a run, as ``models``.
        interval, ignore_last, reset_flag, by_epoch: as of `LoggerHook`.
        tracking_uri: MLflow's server or store; that of the environment (``MLFLOW_TRACKING_URI``) where it is left
            out, and without one a SQLite file in the run's folder.

    Raises:
        ConfigError: mlflow is not installed, or the part of it that saves models.
        TypeError: a wrong type.
    """

    effects = Effects(writes={"logs.mlflow"})

    def __init__(
        self,
        exp_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        log_model: bool = True,  # noqa: FBT001, FBT002 - MMCV's order of arguments
        interval: int = 10,
        ignore_last: bool = True,  # noqa: FBT001, FBT002
        reset_flag: bool = False,  # noqa: FBT001, FBT002
        by_epoch: bool = True,  # noqa: FBT001, FBT002
        *,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        if log_model:  # mlflow-skinny brings mlflow.pytorch, but not what it imports
            check_package("MlflowLoggerHook(log_model=True), which needs the whole of mlflow,", "pandas")
        self.log_model = log_model
        self._options: dict[str, Any] = {
            "exp_name": exp_name,
            "tags": tags,
            "params": params,
            "artifact_suffix": (),
        }
        self._tracking_uri = tracking_uri
        self._backend = MLflowVisBackend(tracking_uri=tracking_uri, **self._options)
        self._place: tuple[str | None, str | None] = (None, tracking_uri)

    @background
    def before_run(self, runner: Any) -> BackgroundPart | None:
        """Open the run."""
        super().before_run(runner)
        uri = self._tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        place = (None if runner.work_dir is None else os.fspath(runner.work_dir), uri)
        if self._place != place:
            self._place, self._backend = place, MLflowVisBackend(place[0], tracking_uri=uri, **self._options)
        return in_thread(lambda: self._backend.experiment) if runner.rank == 0 else None

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Upload the model, a copy on the host, and end the run."""
        if runner.rank != 0:
            return None
        return in_thread(partial(self._end, copy_on_host(runner.model) if self.log_model else None))

    def _write(self, record: Record) -> None:
        self._backend.add_scalars(record.tags(), record.iter)

    def _end(self, model: Any) -> None:
        try:
            if model is not None:
                self._upload(model)
        finally:
            self._finish_once()

    def _upload(self, model: Any) -> None:
        from mlflow import pytorch

        # Later versions trace a model, for which they need an input.
        as_it_is = {"serialization_format": "pickle"}
        takes = inspect.signature(pytorch.save_model).parameters
        options = {name: value for name, value in as_it_is.items() if name in takes}
        requirement = f"torch=={torch.__version__.partition('+')[0]}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "models")
            pytorch.save_model(model, path, pip_requirements=[requirement], **options)
            self._backend.experiment.log_artifacts(self._backend.run_id, os.fspath(path), "models")

    def _finish(self) -> None:
        self._backend.has_failed = self._has_failed
        self._backend.close()
