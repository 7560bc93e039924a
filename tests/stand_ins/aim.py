"""Stands in for the package aim: the part of its interface that is used, recording its calls."""

from typing import Any

from recording_stand_in import record  # type: ignore[import-not-found]


class Image:
    def __init__(self, image: Any) -> None:
        self.shape = image.shape


class Run:
    hash = "hash-1"

    def __init__(
        self, run_hash: str | None = None, *, repo: str | None = None, experiment: str | None = None
    ) -> None:
        record("Run", run_hash=run_hash, repo=repo, experiment=experiment)

    def __setitem__(self, key: str, value: Any) -> None:
        record("set", key=key, value=value)

    def track(self, value: Any, name: str | None = None, step: int | None = None) -> None:
        record("track", value=getattr(value, "shape", value), name=name, step=step)

    def close(self) -> None:
        record("close")
