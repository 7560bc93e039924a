"""Stands in for the package dvclive: the part of its interface that is used, recording its calls."""

from typing import Any

from recording_stand_in import record  # type: ignore[import-not-found]


class Live:
    def __init__(
        self,
        dir: str = "dvclive",  # noqa: A002 - as there
        resume: bool = False,
        report: str | None = None,
        save_dvc_exp: bool = True,
        cache_images: bool = False,
    ) -> None:
        record("Live", dir=dir, resume=resume or None, save_dvc_exp=save_dvc_exp)
        self.step = 0

    def log_metric(self, name: str, val: float, timestamp: bool = False, plot: bool = True) -> None:
        record("log_metric", name=name, val=val, step=self.step)

    def log_params(self, params: dict[str, Any]) -> None:
        record("log_params", params=params)

    def log_image(self, name: str, val: Any) -> None:
        record("log_image", name=name, shape=val.shape, step=self.step)

    def log_artifact(self, path: str, name: str | None = None) -> None:
        record("log_artifact", path=path)

    def end(self) -> None:
        record("end")
