"""Stands in for the package pavi: the part of its interface that MMCV uses, recording its calls."""

from pathlib import Path
from typing import Any

from recording_stand_in import record  # type: ignore[import-not-found]


class SummaryWriter:
    def __init__(
        self,
        name: str | None = None,
        model: str | None = None,
        project: str | None = None,
        session_text: str | None = None,
        **options: Any,
    ) -> None:
        record("SummaryWriter", name=name, model=model, project=project, session_text=session_text)

    def add_scalars(self, phase: str, dictionary: dict[str, float], iteration: int) -> None:
        record("add_scalars", phase=phase, dictionary=dictionary, iteration=iteration)

    def add_snapshot_file(self, tag: str, snapshot_file_path: str, iteration: int) -> None:
        path = Path(snapshot_file_path)
        record("add_snapshot_file", tag=tag, name=path.name, size=path.stat().st_size, iteration=iteration)

    def add_graph(self, model: Any, image: Any, tag: str, opset_version: int = 11) -> None:
        record("add_graph", model=type(model).__name__, tag=tag, opset_version=opset_version)

    def close(self) -> None:
        record("close")
