"""Stands in for the package neptune: the part of its interface that is used, recording its calls."""

from typing import Any

from recording_stand_in import record  # type: ignore[import-not-found]


class Handler:
    def __init__(self, path: str) -> None:
        self._path = path

    def append(self, value: Any, *, step: float | None = None, **options: Any) -> None:
        record("append", path=self._path, value=value, step=step, **options)

    def upload(self, value: Any) -> None:
        record("upload", path=self._path, value=value)

    def fetch(self) -> str:
        return "RUN-1"


class Run:
    def __getitem__(self, path: str) -> Handler:
        return Handler(path)

    def stop(self) -> None:
        record("stop")


def init_run(
    with_id: str | None = None,
    *,
    project: str | None = None,
    api_token: str | None = None,
    mode: str | None = None,
) -> Run:
    record("init_run", with_id=with_id, project=project, mode=mode)
    return Run()
