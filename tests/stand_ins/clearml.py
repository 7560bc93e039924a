"""Stands in for the package clearml: the part of its interface that is used, recording its calls."""

from typing import Any, Self

from recording_stand_in import record  # type: ignore[import-not-found]


class Logger:
    def report_scalar(self, title: str, series: str, value: float, iteration: int) -> None:
        record("report_scalar", title=title, series=series, value=value, iteration=iteration)

    def report_image(
        self, title: str, series: str, iteration: int | None = None, local_path: Any = None, image: Any = None
    ) -> None:
        record("report_image", title=title, series=series, iteration=iteration, shape=image.shape)


class Task:
    id = "task-1"

    @classmethod
    def init(
        cls,
        project_name: str | None = None,
        task_name: str | None = None,
        *,
        continue_last_task: bool | str | int = False,
    ) -> Self:
        record("init", project_name=project_name, task_name=task_name, continues=continue_last_task or None)
        return cls()

    def get_logger(self) -> Logger:
        return Logger()

    def connect_configuration(self, configuration: Any, name: str | None = None) -> Any:
        record("connect_configuration", configuration=configuration, name=name)
        return configuration

    def upload_artifact(self, name: str, artifact_object: Any) -> bool:
        record("upload_artifact", name=name, artifact_object=artifact_object)
        return True

    def close(self) -> None:
        record("close")
