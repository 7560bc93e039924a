"""`MLflowVisBackend`: a run of MLflow, on a tracking server or in a SQLite file of its own.

Uses MLflow's client with the run's id. MLflow's module-level functions keep their run per thread, and background
parts have no thread of their own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization._backend import Image
from asynchooks.visualization._client import (
    ClientBackend,
    checked_mapping,
    checked_suffixes,
    config_values,
    files_below,
)
from asynchooks.visualization._local import config_text
from asynchooks.visualization._scalars import numbers_by_name

__all__ = ["MLflowVisBackend"]

_FORBIDDEN = re.compile(r"[^\w\-. :/]")
_PARAMS_PER_CALL = 100


@VISBACKENDS.register_module()
class MLflowVisBackend(ClientBackend):
    """Writes to a run of MLflow; after `close`, to the same run.

    Args:
        save_dir: folder of ``mlflow.db`` and the artifacts, where there is no ``tracking_uri``.
        exp_name: name of the experiment, made if there is none; "Default" where it is left out, or "runs" in a SQLite
            file of its own: what belongs to "Default" is kept by MLflow in the current folder.
        run_name: name of the run.
        tags: tags of the run.
        params: parameters of the run.
        tracking_uri: MLflow's server or store. A server's user and password stand in MLflow's environment variables.
        artifact_suffix: endings of the files of the run's ``work_dir`` that `close` uploads.
        tracked_config_keys: top-level keys of the configuration that become parameters; all where it is left out.
        artifact_location: where artifacts of a new experiment go.

    Raises:
        ConfigError: mlflow is not installed, or a password stands in ``tracking_uri``.
        TypeError: an argument of the wrong type.
    """

    package = "mlflow"
    extra = "mlflow"

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        exp_name: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
        artifact_suffix: str | Sequence[str] = (".json", ".log", ".py", "yaml"),
        tracked_config_keys: Iterable[str] | None = None,
        artifact_location: str | None = None,
    ) -> None:
        super().__init__(save_dir)
        self.needs_save_dir = tracking_uri is None
        self._exp_name = exp_name or ("runs" if tracking_uri is None else "Default")
        self._run_name = run_name
        self._tags = checked_mapping("MLflowVisBackend", "tags", tags)
        self._params = checked_mapping("MLflowVisBackend", "params", params)
        self._tracking_uri = _checked_uri(tracking_uri)
        self._suffixes = checked_suffixes("MLflowVisBackend", "artifact_suffix", artifact_suffix)
        self._config_keys = None if tracked_config_keys is None else tuple(tracked_config_keys)
        self._artifact_location = artifact_location
        self._run_id = ""
        self._work_dir: str | None = None

    @property
    def run_id(self) -> str:
        """The run's id, opened now if it is not open; `experiment` is MLflow's client."""
        _ = self.experiment
        return self._run_id

    def add_config(self, config: Mapping[str, Any] | str) -> None:
        """Record the configuration: a text file, and its values as parameters."""
        text = config_text(config)
        if not isinstance(config, str):
            values = config_values(config)
            self._work_dir = values.get("work_dir")
            keys = values if self._config_keys is None else [k for k in self._config_keys if k in values]
            self._log_params(_flat({key: values[key] for key in keys}))
        self.experiment.log_text(self.run_id, text, "config.py")

    def add_image(self, name: str, image: Image, step: int = 0) -> None:
        """Record an image: under its step, or as the file of that name where the name has an ending."""
        if Path(name).suffix:
            self.experiment.log_image(self.run_id, image, artifact_file=name)
        else:
            self.experiment.log_image(self.run_id, image, key=name, step=step)

    def add_scalars(
        self, scalars: Mapping[str, Any], step: int = 0, file_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the numbers of one step, at once. What MLflow's names cannot hold becomes ``_``."""
        del file_path
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_name(name), float(number), now, step) for name, number in numbers_by_name(scalars).items()
        ]
        if metrics:
            self.experiment.log_batch(self.run_id, metrics=metrics)

    def add_file(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Upload a local file into a folder of the run's artifacts."""
        self.experiment.log_artifact(self.run_id, os.fspath(path), folder)

    def _open(self) -> Any:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._tracking_uri or self._own_store())
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            return client
        location = self._artifact_location
        if location is None and self._tracking_uri is None:
            location = Path(self._folder(), "mlruns").absolute().as_uri()
        experiment = client.get_experiment_by_name(self._exp_name)
        if experiment is None:
            identity = client.create_experiment(self._exp_name, artifact_location=location)
        else:
            identity = experiment.experiment_id
        tags = {name: str(value) for name, value in self._tags.items()}
        run = client.create_run(identity, run_name=self._run_name, tags=tags)
        self._client, self._run_id = client, run.info.run_id
        self._log_params(self._params)
        return client

    def _finish(self, client: Any) -> None:
        for path in files_below(self._work_dir, self._suffixes):
            parent = path.parent.relative_to(self._work_dir or ".").as_posix()
            client.log_artifact(self._run_id, os.fspath(path), None if parent == "." else parent)
        client.set_terminated(self._run_id, "FAILED" if self.has_failed else None)

    def _log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(_name(name), str(value)) for name, value in params.items()]
        for first in range(0, len(entries), _PARAMS_PER_CALL):
            self.experiment.log_batch(self.run_id, params=entries[first : first + _PARAMS_PER_CALL])

    def _own_store(self) -> str:
        missing = [name for name in ("sqlalchemy", "alembic") if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"MLflowVisBackend without a tracking_uri writes a SQLite file, for which MLflow needs "
                f"{' and '.join(missing)}: pip install {' '.join(missing)}."
            )
        Path(self._folder()).mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{Path(self._folder(), 'mlflow.db').absolute()}"

    def _folder(self) -> str:
        if self.save_dir is None:
            raise ConfigError(
                "MLflowVisBackend writes to its save_dir, the visualizer's, or a tracking_uri; there is none."
            )
        return self.save_dir


def _checked_uri(uri: Any) -> str | None:
    if uri is not None and not isinstance(uri, str):
        raise TypeError(f"MLflowVisBackend(tracking_uri=...): give a string, not a {type(uri).__name__}.")
    if uri is not None and uri.startswith(("http://", "https://")) and urlsplit(uri).password is not None:
        raise ConfigError(
            "MLflowVisBackend(tracking_uri=...) holds a password, which MLflow would show in its messages. Set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead."
        )
    return uri


def _flat(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Return nested dicts, and lists of dicts, as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        for key, each in _inner(f"{parent}{name}", value):
            flat |= _flat(each, f"{key}.") if isinstance(each, Mapping) else {key: each}
    return flat


def _inner(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for index, each in enumerate(value):
            yield f"{name}.{index}", each
    else:
        yield name, value


def _name(name: str) -> str:
    return _FORBIDDEN.sub("_", name)
