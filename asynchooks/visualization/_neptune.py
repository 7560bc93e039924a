"""`NeptuneVisBackend`: a run of Neptune."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image
from asynchooks.visualization._client import ClientBackend, checked_mapping
from asynchooks.visualization._local import config_text
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["NeptuneVisBackend"]


@VISBACKENDS.register_module()
class NeptuneVisBackend(ClientBackend):
    """Writes to a run of Neptune; after `close`, to the same run, unless it is offline.

    Args:
        save_dir: not used; Neptune keeps its own folder.
        init_kwargs: arguments of ``neptune.init_run``; offline where it is left out.

    Raises:
        ConfigError: neptune is not installed.
        TypeError: ``init_kwargs`` is no dict.
    """

    package = "neptune"
    extra = "neptune"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(save_dir)
        self._init_kwargs = checked_mapping("NeptuneVisBackend", "init_kwargs", init_kwargs)
        if init_kwargs is None:
            self._init_kwargs = {"mode": "offline"}
        self._run_id: str | None = None

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run, as a text."""
        self.experiment["config"].upload(_files().from_content(config_text(config)))

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image."""
        scaled = image.astype(np.float32) / 255.0  # Neptune takes numbers from 0 to 1
        self.experiment["images"].append(_files().as_image(scaled), name=name, step=step)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step."""
        del file_path
        for name, number in numbers_by_name(scalars).items():
            self.experiment[name].append(number, step=step)

    def add_value(self, name: str, value: float) -> None:
        """Record a number under no step; Neptune counts by itself."""
        self.experiment[name].append(value)

    def _open(self) -> Any:
        options = dict(self._init_kwargs)
        if self._run_id is not None and options.get("mode") != "offline":
            options["with_id"] = self._run_id
        return import_module("neptune").init_run(**options)

    def _finish(self, client: Any) -> None:
        if self._init_kwargs.get("mode") != "offline":
            self._run_id = client["sys/id"].fetch()
        client.stop()


def _files() -> Any:
    return import_module("neptune.types").File
