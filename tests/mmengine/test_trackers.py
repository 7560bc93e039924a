"""W&B and MLflow behind our backends and behind MMEngine's: the same calls leave the same numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.config
import mmengine.visualization
import numpy as np
import pytest

from asynchooks import visualization

Rows = Callable[[Path], list[dict[str, Any]]]

OFFLINE = {"mode": "offline", "project": "tests"}


def use(backend: Any, work_dir: Path) -> None:
    work_dir.mkdir(exist_ok=True)
    backend.add_config(
        mmengine.config.Config({"work_dir": str(work_dir), "optim": {"lr": 0.1}, "steps": [{"a": 1}]})
    )
    backend.add_scalars({"loss": 0.5, "lr": 0.1}, step=1)
    backend.add_scalar("acc", 0.25, step=1)
    backend.add_scalars({"loss": 0.25, "lr": 0.1}, step=2)


def test_wandb_has_the_same_rows(tmp_path: Path, wandb_rows: Rows) -> None:
    ours = visualization.WandbVisBackend(tmp_path / "ours", OFFLINE)
    theirs = mmengine.visualization.WandbVisBackend(str(tmp_path / "theirs"), dict(OFFLINE))
    for backend in (ours, theirs):
        use(backend, tmp_path / "work")
        backend.close() if backend is ours else backend.experiment.finish()  # its close() calls what is gone

    rows = wandb_rows(tmp_path / "ours")
    assert [{k: v for k, v in row.items() if k != "step"} for row in rows] == wandb_rows(tmp_path / "theirs")
    assert [row["step"] for row in rows] == [1, 1, 2]


@pytest.mark.filterwarnings("ignore:The ``noload``")
def test_mlflow_has_the_same_metrics_and_params(
    tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # theirs sets it for the whole process
    uris = {}
    for name in ("ours", "theirs"):
        uris[name] = f"sqlite:///{shutil.copy(mlflow_store, tmp_path / f'{name}.db')}"
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {"exp_name": "e", "run_name": "r", "tags": {"t": "1"}, "params": {"p": "2"}}
    artifacts = (tmp_path / "artifacts").as_uri()
    kinds = {
        "ours": visualization.MLflowVisBackend,
        "theirs": mmengine.visualization.MLflowVisBackend,
    }
    found = {}
    for name, kind in kinds.items():
        backend: Any = kind(
            str(tmp_path / name), tracking_uri=uris[name], artifact_location=artifacts, **options
        )
        use(backend, tmp_path / "work")
        backend.add_image("a.png", np.zeros((2, 2, 3), np.uint8))
        backend.close()
        client = mlflow.MlflowClient(tracking_uri=uris[name])
        experiment = client.get_experiment_by_name("e")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        history = [
            (m.step, m.value)
            for key in ("loss", "lr", "acc")
            for m in client.get_metric_history(run.info.run_id, key)
        ]
        files = sorted(f.path for f in client.list_artifacts(run.info.run_id))
        found[name] = (
            history,
            run.data.params,
            run.data.tags["t"],
            files,
            run.info.run_name,
            run.info.status,
        )

    mlflow.set_tracking_uri("")
    assert found["ours"] == found["theirs"]
