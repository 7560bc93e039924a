"""`DVCLiveVisBackend`: DVC's log of an experiment, files beside the code."""

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

__all__ = ["DVCLiveVisBackend"]


@VISBACKENDS.register_module()
class DVCLiveVisBackend(ClientBackend):
    """Writes through ``dvclive.Live``; after `close`, it goes on in the same folder.

    Without a repository of DVC, set ``init_kwargs=dict(save_dvc_exp=False)``: none is made here, and no program is
    run. (MMEngine runs ``dvc init`` in the current folder.)

    Args:
        save_dir: folder of DVCLive's files, unless ``init_kwargs`` has ``dir``.
        artifact_suffix: endings of the files below ``save_dir`` that `close` records as artifacts.
        init_kwargs: arguments of ``dvclive.Live``.
        live: a ``Live`` of the caller's, who ends it.

    Raises:
        ConfigError: dvclive is not installed.
        TypeError: an argument of the wrong type.
    """

    package = "dvclive"
    extra = "dvclive"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        artifact_suffix: str | Sequence[str] = (".json", ".py", "yaml"),
        init_kwargs: Mapping[str, Any] | None = None,
        *,
        live: Any = None,
    ) -> None:
        super().__init__(save_dir)
        self._suffixes = checked_suffixes("DVCLiveVisBackend", "artifact_suffix", artifact_suffix)
        self._init_kwargs = checked_mapping("DVCLiveVisBackend", "init_kwargs", init_kwargs)
        self._live = live
        self._was_open = False

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration of the run, as parameters."""
        self.experiment.log_params(config_values(config))

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image, as PNG."""
        self.experiment.step = step
        self.experiment.log_image(f"{name}.png", image)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step."""
        del file_path
        numbers = numbers_by_name(scalars)
        if numbers:
            self.experiment.step = step
        for name, number in numbers.items():
            self.experiment.log_metric(name, number)

    def _open(self) -> Any:
        if self._live is not None:
            return self._live
        options = {"save_dvc_exp": True, "cache_images": True, **self._init_kwargs}
        if self.save_dir is not None:
            options.setdefault("dir", self.save_dir)
        if self._was_open:
            options["resume"] = True
        self._was_open = True
        return import_module("dvclive").Live(**options)

    def _finish(self, client: Any) -> None:
        for path in files_below(self.save_dir, self._suffixes):
            client.log_artifact(os.fspath(path))
        if client is not self._live:
            client.end()
