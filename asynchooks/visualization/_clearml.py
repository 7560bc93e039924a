"""`ClearMLVisBackend`: a task of ClearML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image
from asynchooks.visualization._client import (
    ClientBackend,
    checked_mapping,
    checked_suffixes,
    config_values,
    files_below,
)
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["ClearMLVisBackend"]


@VISBACKENDS.register_module()
class ClearMLVisBackend(ClientBackend):
    """Writes to a task of ClearML; after `close`, to the same task.

    Args:
        save_dir: not used; ClearML keeps no files here.
        init_kwargs: arguments of ``clearml.Task.init``.
        artifact_suffix: endings of the files of the run's ``work_dir`` (not of its folders) that `close` uploads.

    Raises:
        ConfigError: clearml is not installed.
        TypeError: an argument of the wrong type.
    """

    package = "clearml"
    extra = "clearml"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
        artifact_suffix: str | Sequence[str] = (".py", ".pth"),
    ) -> None:
        super().__init__(save_dir)
        self._init_kwargs = checked_mapping("ClearMLVisBackend", "init_kwargs", init_kwargs)
        self._suffixes = checked_suffixes("ClearMLVisBackend", "artifact_suffix", artifact_suffix)
        self._task_id: str | None = None
        self._work_dir: str | None = None

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run."""
        values = config_values(config)
        self._work_dir = values.get("work_dir")
        self.experiment.connect_configuration(values)

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image."""
        self.experiment.get_logger().report_image(title=name, series=name, iteration=step, image=image)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step."""
        del file_path
        logger = self.experiment.get_logger()
        for name, number in numbers_by_name(scalars).items():
            logger.report_scalar(title=name, series=name, value=number, iteration=step)

    def _open(self) -> Any:
        task = import_module("clearml").Task
        if self._task_id is not None:
            return task.init(**{**self._init_kwargs, "continue_last_task": self._task_id})
        return task.init(**self._init_kwargs)

    def _finish(self, client: Any) -> None:
        self._task_id = client.id
        for path in files_below(self._work_dir, self._suffixes):
            if path.parent == type(path)(self._work_dir or "."):
                client.upload_artifact(path.name, os.fspath(path))
        client.close()
