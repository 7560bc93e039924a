"""Stands in for the package segmind: the part of its interface that MMCV uses, recording its calls."""

from types import SimpleNamespace
from typing import Any

from recording_stand_in import record  # type: ignore[import-not-found]


def _log_metrics(metrics: dict[str, float], step: int, epoch: int) -> None:
    record("log_metrics", metrics=metrics, step=step, epoch=epoch)


def _try_mlflow_log(function: Any, *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


tracking = SimpleNamespace(fluent=SimpleNamespace(log_metrics=_log_metrics))
utils = SimpleNamespace(logging_utils=SimpleNamespace(try_mlflow_log=_try_mlflow_log))
