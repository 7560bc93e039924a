"""The W&B backend, run offline; what it wrote is read from W&B's own file."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asynchooks.errors import ConfigError
from asynchooks.registry import VISBACKENDS
from asynchooks.visualization import WandbVisBackend

Rows = Callable[[Path], list[dict[str, Any]]]
Records = Callable[[Path], list[Any]]

OFFLINE = {"mode": "offline", "project": "tests"}


def values(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "_step"} for row in rows]


def test_scalars_are_rows_with_their_step(tmp_path: Path, wandb_rows: Rows) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE)
    backend.add_scalars({"loss": torch.tensor(0.5), "mode": "train", "text": "none"}, step=10)
    backend.add_scalar("acc", 0.75, step=1)
    backend.close()

    assert values(wandb_rows(tmp_path)) == [{"train/loss": 0.5, "step": 10}, {"acc": 0.75, "step": 1}]


def test_each_curve_has_the_given_step_as_its_axis(tmp_path: Path, wandb_records: Records) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE, define_metric_cfg={"coco/bbox_mAP": "max"})
    backend.add_scalar("coco/bbox_mAP", 0.5, step=1)
    backend.close()
    metrics = [r.metric for r in wandb_records(tmp_path) if r.WhichOneof("record_type") == "metric"]

    assert {m.glob_name or m.name: m.step_metric for m in metrics} == {
        "step": "",
        "*": "step",
        "coco/bbox_mAP": "step",
    }
    assert [m.summary.max for m in metrics if m.name == "coco/bbox_mAP"] == [True]


def test_after_closing_the_same_run_goes_on_with_further_steps(tmp_path: Path, wandb_rows: Rows) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE)
    backend.add_scalar("a", 1, step=1)
    first = backend.experiment.id
    backend.close()
    backend.close()
    backend.add_scalar("a", 2, step=2)
    second = backend.experiment.id
    backend.close()

    assert first == second
    assert [(row["a"], row["_step"]) for row in wandb_rows(tmp_path)] == [(1, 0), (2, 1)]


def test_rows_of_one_step_are_one_row_and_a_step_that_has_passed_is_the_current_one(
    tmp_path: Path, wandb_rows: Rows
) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE)
    backend.add_row({"train": 1}, step=5)
    backend.add_row({"val": 2}, step=5)
    backend.add_row({"late": 3}, step=2)
    backend.add_row({"train": 4}, step=6)
    backend.close()

    assert wandb_rows(tmp_path) == [
        {"train": 1, "val": 2, "late": 3, "step": 5, "_step": 5},
        {"train": 4, "step": 6, "_step": 6},
    ]


def test_without_commit_rows_are_collected(tmp_path: Path, wandb_rows: Rows) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE, commit=False)
    backend.add_scalar("a", 1, step=1)
    backend.add_scalar("b", 2, step=1)
    backend.close()

    assert values(wandb_rows(tmp_path)) == [{"a": 1, "b": 2, "step": 1}]


def test_any_thread_may_call_next(tmp_path: Path, wandb_rows: Rows) -> None:
    backend = WandbVisBackend(tmp_path, OFFLINE)
    for step in range(3):
        thread = threading.Thread(target=backend.add_scalar, args=("a", step, step))
        thread.start()
        thread.join()
    backend.close()

    assert [row["a"] for row in wandb_rows(tmp_path)] == [0, 1, 2]


def test_a_run_that_is_shared_is_ended_by_whoever_began_it(tmp_path: Path, wandb_rows: Rows) -> None:
    first, second = WandbVisBackend(tmp_path, OFFLINE), WandbVisBackend(tmp_path, OFFLINE)
    first.add_scalar("a", 1, step=1)
    second.add_scalar("b", 2, step=1)
    second.close()
    first.add_scalar("a", 3, step=2)
    second.add_scalar("b", 4, step=2)
    assert first.experiment is second.experiment
    first.close()
    second.add_scalar("b", 5, step=3)
    second.close()

    assert [row.get("a", row.get("b")) for row in wandb_rows(tmp_path)] == [1, 2, 3, 4, 5]


def test_configuration_images_and_artifacts_are_recorded(tmp_path: Path, wandb_records: Records) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    backend = WandbVisBackend(tmp_path, OFFLINE, watch_kwargs={"log": None})
    backend.add_config({"lr": 0.1, "shape": (1, np.float32(2.0))})
    backend.add_graph(torch.nn.Linear(1, 1), None)
    backend.add_image("img", np.zeros((4, 4, 3), np.uint8), step=2)
    backend.add_artifact("model", "model", [tmp_path / "model.pth"], aliases=["best"], metadata={"epoch": 1})
    backend.close()
    records = wandb_records(tmp_path)
    configs = [u for r in records if r.HasField("config") for u in r.config.update]
    artifacts = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    (artifact,) = [each for each in artifacts if each.type == "model"]

    assert {u.key: json.loads(u.value_json) for u in configs if u.key in ("lr", "shape")} == {
        "lr": 0.1,
        "shape": [1, 2.0],
    }
    assert list(tmp_path.glob("**/files/media/images/*.png"))
    assert (artifact.name, set(artifact.aliases), json.loads(artifact.metadata)) == (
        "model",
        {"best", "latest"},
        {"epoch": 1},
    )
    assert [entry.path for entry in artifact.manifest.contents] == ["model.pth"]


def test_constructing_opens_nothing(tmp_path: Path) -> None:
    VISBACKENDS.build({"type": "WandbVisBackend", "save_dir": tmp_path / "w", "init_kwargs": OFFLINE})

    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"define_metric_cfg": {"mAP": "biggest"}}, "'biggest'; there are best"),
        ({"define_metric_cfg": [{"summary": "max"}]}, "is no dict"),
    ],
)
def test_a_summary_that_there_is_not_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WandbVisBackend(**options)


def test_a_wrong_argument_is_refused_without_showing_it() -> None:
    with pytest.raises(TypeError, match="a dict with names as keys, not a str") as refusal:
        WandbVisBackend(init_kwargs="my-secret-key")  # type: ignore[arg-type]

    assert "my-secret" not in str(refusal.value)
