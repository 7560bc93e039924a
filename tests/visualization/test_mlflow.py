"""The MLflow backend on a SQLite file, read back by MLflow's client."""

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization import MLflowVisBackend

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's, of SQLAlchemy 2.1


@pytest.fixture
def folder(tmp_path: Path, mlflow_store: Path) -> Path:
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    return tmp_path


def client_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def test_scalars_have_their_step_and_names_that_mlflow_takes(folder: Path) -> None:
    backend = MLflowVisBackend(folder, exp_name="e", run_name="r", tags={"team": 1}, params={"seed": 0})
    backend.add_scalars({"loss": 0.5, "AR@100": 0.25, "nan": float("nan"), "text": "x"}, step=3)
    backend.add_scalar("loss", 0.25, step=6)
    backend.close()
    client = client_of(folder)
    run = client.get_run(backend.run_id)

    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (3, 0.5),
        (6, 0.25),
    ]
    assert set(run.data.metrics) == {"loss", "AR_100", "nan"}
    assert (run.info.run_name, run.data.tags["team"], run.data.params) == ("r", "1", {"seed": "0"})
    assert client.get_experiment(run.info.experiment_id).name == "e"


def test_after_closing_the_same_run_goes_on(folder: Path) -> None:
    backend = MLflowVisBackend(folder)
    backend.add_scalar("a", 1, step=1)
    first = backend.run_id
    backend.close()
    backend.close()
    client = client_of(folder)
    assert client.get_run(first).info.status == "FINISHED"
    backend.add_scalar("a", 2, step=2)

    assert backend.run_id == first
    assert client.get_run(first).info.status == "RUNNING"
    assert [m.value for m in client.get_metric_history(first, "a")] == [1, 2]
    backend.close()


def test_the_configuration_is_parameters_and_a_file_and_the_logs_are_uploaded(folder: Path) -> None:
    work_dir = folder / "work"
    (work_dir / "logs").mkdir(parents=True)
    (work_dir / "logs" / "a.log").write_text("line")
    (work_dir / "model.pth").write_text("weights")
    backend = MLflowVisBackend(folder)
    backend.add_config(
        {
            "work_dir": str(work_dir),
            "optim": {"lr": 0.1},
            "steps": [{"type": "A"}, {"type": "B"}],
            "n": [1, 2],
        }
    )
    backend.close()
    client = client_of(folder)
    params = client.get_run(backend.run_id).data.params

    assert params.pop("work_dir") == str(work_dir)
    assert params == {"optim.lr": "0.1", "steps.0.type": "A", "steps.1.type": "B", "n": "[1, 2]"}
    assert {f.path for f in client.list_artifacts(backend.run_id)} == {"config.py", "logs"}
    assert [f.path for f in client.list_artifacts(backend.run_id, "logs")] == ["logs/a.log"]


def test_tracked_config_keys_choose_the_parameters(folder: Path) -> None:
    backend = MLflowVisBackend(folder, tracked_config_keys=["lr"])
    backend.add_config({"lr": 0.1, "other": 1})

    assert client_of(folder).get_run(backend.run_id).data.params == {"lr": "0.1"}


def test_images_are_artifacts_whether_their_name_has_an_ending_or_not(folder: Path) -> None:
    backend = MLflowVisBackend(folder)
    backend.add_image("a.png", np.zeros((4, 4, 3), np.uint8))
    backend.add_image("val_img", np.zeros((4, 4, 3), np.uint8), step=3)
    client = client_of(folder)
    files = {f.path for f in client.list_artifacts(backend.run_id)}

    assert files == {"a.png", "images"}
    assert client.get_run(backend.run_id).info.artifact_uri.startswith((folder / "mlruns").as_uri())


def test_any_thread_may_call_next_and_loggers_stay_on(folder: Path) -> None:
    own = logging.getLogger("asynchooks.tests.mlflow")
    backend = MLflowVisBackend(folder)
    for step in range(3):
        thread = threading.Thread(target=backend.add_scalar, args=("a", step, step))
        thread.start()
        thread.join()

    assert [m.value for m in client_of(folder).get_metric_history(backend.run_id, "a")] == [0, 1, 2]
    assert not own.disabled


def test_constructing_opens_nothing(tmp_path: Path) -> None:
    VISBACKENDS.build({"type": "MLflowVisBackend", "save_dir": tmp_path / "m"})

    assert not (tmp_path / "m").exists()


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as refusal:
        MLflowVisBackend(tracking_uri="https://user:hunter2@mlflow.example")

    assert "hunter2" not in str(refusal.value)


def test_without_a_folder_and_an_address_there_is_nowhere_to_write(trackers: None) -> None:
    with pytest.raises(ConfigError, match="save_dir"):
        MLflowVisBackend().add_scalar("a", 1)
