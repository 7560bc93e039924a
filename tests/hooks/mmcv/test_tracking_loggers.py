"""MMCV's loggers for TensorBoard, W&B and MLflow: what the services' own readers find."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv.loggers import (
    MlflowLoggerHook,
    TensorboardLoggerHook,
    TextLoggerHook,
    WandbLoggerHook,
)

Run = Callable[..., Any]
Rows = Callable[[Path], list[dict[str, Any]]]
Records = Callable[[Path], list[Any]]

OFFLINE = {"mode": "offline", "project": "tests"}


class Results(RunnerHook):
    priority = "LOW"
    effects = Effects()

    def after_train_epoch(self, runner: Any) -> None:
        runner.log_buffer.output.update(mAP=0.5, note="good", eval_iter_num=7)
        runner.log_buffer.ready = True


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_scalars_and_texts(run: Run, tmp_path: Path) -> None:
    run(Results(), TensorboardLoggerHook(interval=2))
    folder = tmp_path / "run" / "tf_logs"
    events = EventAccumulator(str(folder)).Reload()

    assert scalars(folder) == {
        "train/loss": [(2, 1.5), (4, 3.5)],
        "val/mAP": [(5, 0.5)],
        "learning_rate": [(2, 0.5), (4, 0.5), (5, 0.5)],
        "momentum": [(2, 0.9), (4, 0.9), (5, 0.9)],
    }
    (text,) = events.Tensors("val/note/text_summary")
    assert (text.step, text.tensor_proto.string_val) == (5, [b"good"])


def test_tensorboard_goes_on_when_the_runner_runs_again(run: Run, tmp_path: Path) -> None:
    runner = run(TensorboardLoggerHook(log_dir=tmp_path / "tb", interval=4))
    runner._max_epochs = 2
    run(runner=runner)

    assert scalars(tmp_path / "tb")["train/loss"] == [(4, 2.5), (8, 6.5)]


def test_wandb_has_a_row_per_iteration(run: Run, tmp_path: Path, wandb_rows: Rows) -> None:
    run(Results(), WandbLoggerHook(OFFLINE, interval=1, log_artifact=False), max_epochs=2, batches=2)
    rows = wandb_rows(tmp_path)

    assert [(r["_step"], r.get("train/loss"), r.get("val/mAP")) for r in rows] == [
        (1, 1.0, None),
        (2, 2.0, None),
        (3, 3.0, 0.5),  # the evaluation after iteration 2 has MMCV's number of it, 3
        (4, 4.0, None),
        (5, None, 0.5),
    ]
    assert {(r["learning_rate"], r["momentum"]) for r in rows} == {(0.5, 0.9)}


def test_wandb_without_steps_has_the_iteration_as_a_number(
    run: Run, tmp_path: Path, wandb_rows: Rows
) -> None:
    run(WandbLoggerHook(OFFLINE, interval=2, with_step=False, log_artifact=False))

    assert [(row["global_step"], row["train/loss"]) for row in wandb_rows(tmp_path)] == [(2, 1.5), (4, 3.5)]


def test_wandb_gets_the_log_files_when_they_are_whole(
    run: Run, tmp_path: Path, wandb_records: Records
) -> None:
    runner = run(TextLoggerHook(interval=1), WandbLoggerHook(OFFLINE))
    artifacts = [r.artifact for r in wandb_records(tmp_path) if r.WhichOneof("record_type") == "artifact"]
    (artifact,) = [each for each in artifacts if each.name == "artifacts"]
    log = tmp_path / "run" / f"{runner.timestamp}.log.json"

    assert [(e.path, e.size) for e in artifact.manifest.contents] == [(log.name, log.stat().st_size)]


def test_wandb_waits_for_checkpoints_where_they_are_among_its_files() -> None:
    assert WandbLoggerHook(OFFLINE, out_suffix=".pth").effects.covers({"checkpoints"})  # type: ignore[union-attr]
    assert not WandbLoggerHook(OFFLINE).effects.covers({"checkpoints"})  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:The ``noload``")
def test_mlflow_has_metrics_tags_and_params(run: Run, tmp_path: Path, mlflow_store: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{shutil.copy(mlflow_store, tmp_path / 'own.db')}"
    hook = MlflowLoggerHook(
        "e", tags={"a": 1}, params={"seed": 3}, log_model=False, interval=2, tracking_uri=uri
    )
    run(Results(), hook)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])

    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "train/loss")] == [
        (2, 1.5),
        (4, 3.5),
    ]
    assert (found.data.tags["a"], found.data.params, found.data.metrics["val/mAP"]) == (
        "1",
        {"seed": "3"},
        0.5,
    )
    assert found.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore:The ``noload``")
def test_mlflow_of_the_environment_or_in_the_folder(
    run: Run, tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(mlflow_store, tmp_path / "env.db")
    (tmp_path / "run").mkdir()
    shutil.copy(mlflow_store, tmp_path / "run" / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(MlflowLoggerHook(log_model=False))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'env.db'}")
    run(MlflowLoggerHook(log_model=False))

    assert _runs(tmp_path / "run" / "mlflow.db", "runs") == 1
    assert _runs(tmp_path / "env.db", "Default") == 1


def _runs(path: Path, name: str) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, [e.name for e in client.search_experiments()]
    return len(client.search_runs([experiment.experiment_id]))


def test_a_model_for_mlflow_needs_the_whole_of_it() -> None:
    pytest.importorskip("mlflow")
    try:
        importlib.import_module("pandas")
    except ImportError:
        with pytest.raises(ConfigError, match="whole of mlflow.*pandas"):
            MlflowLoggerHook()
    else:
        assert MlflowLoggerHook().log_model
