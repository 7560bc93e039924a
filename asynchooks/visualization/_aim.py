"""`AimVisBackend`: a run of Aim."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image
from asynchooks.visualization._client import ClientBackend, checked_mapping, config_values
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["AimVisBackend"]


@VISBACKENDS.register_module()
class AimVisBackend(ClientBackend):
    """Writes to a run of Aim; after `close`, to the same run.

    Args:
        save_dir: names the experiment by its last two folders; Aim keeps its own repository (``repo``).
        init_kwargs: arguments of ``aim.Run``; ``experiment`` wins over ``save_dir``.

    Raises:
        ConfigError: aim is not installed.
        TypeError: ``init_kwargs`` is no dict.
    """

    package = "aim"
    extra = "aim"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(save_dir)
        self._init_kwargs = checked_mapping("AimVisBackend", "init_kwargs", init_kwargs)
        self._run_hash: str | None = None

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run, as its parameters."""
        self.experiment["hparams"] = config_values(config)

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image."""
        self.experiment.track(import_module("aim").Image(image), name=name, step=step)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step."""
        del file_path
        for name, number in numbers_by_name(scalars).items():
            self.experiment.track(number, name=name, step=step)

    def _open(self) -> Any:
        options = dict(self._init_kwargs)
        options.setdefault("experiment", self._experiment_name())
        if self._run_hash is not None:
            options["run_hash"] = self._run_hash
        return import_module("aim").Run(**options)

    def _finish(self, client: Any) -> None:
        self._run_hash = client.hash
        client.close()

    def _experiment_name(self) -> str:
        if self.save_dir is None:
            return time.strftime("%Y%m%d_%H%M%S")
        return "_".join(part for part in Path(self.save_dir).parts[-2:] if part not in ("/", "."))
