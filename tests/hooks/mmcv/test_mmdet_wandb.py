"""MMDetection's logger for W&B, run offline: what stands in W&B's own files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from asynchooks.errors import ConfigError
from asynchooks.hooks.mmcv.loggers import MMDetWandbHook
from asynchooks.hooks.mmcv.loggers._samples import chosen
from asynchooks.hooks.mmcv.loggers._tables import Sample, mask_data, prediction_of

Run = Callable[..., Any]
Records = Callable[[Path], list[Any]]

OFFLINE = {"mode": "offline", "project": "tests"}
SAVES = {"type": "CheckpointHook", "interval": 1}


class Detections:
    """A data set as MMDetection 2.x has them, and its evaluation."""

    CLASSES = ("cat", "dog")

    def __init__(self, folder: Path) -> None:
        self.img_prefix = str(folder)
        self.data_infos = [{"filename": f"{i}.png", "height": 8, "width": 8} for i in range(3)]
        for info in self.data_infos:
            Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / str(info["filename"]))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(1)

    def get_ann_info(self, index: int) -> dict[str, Any]:
        return {"bboxes": np.array([[0, 0, 4, 4]], np.float32), "labels": np.array([1])}

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, float]:
        return {"bbox_mAP": 0.25}


def detect(model: Any, loader: Any) -> list[Any]:
    """Find a cat of score 0.9, and a dog of score 0.1, in each image."""
    cat, dog = np.array([[1, 1, 5, 5, 0.9]]), np.array([[2, 2, 3, 3, 0.1]])
    return [[cat, dog] for _ in range(len(loader.dataset))]


@pytest.fixture
def evaluates(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").mkdir()
    loader: Any = DataLoader(Detections(tmp_path / "images"))  # type: ignore[arg-type]
    return {"type": "EvalHook", "dataloader": loader, "interval": 1, "test_fn": detect}


def artifacts(records: list[Any], kind: str) -> list[Any]:
    found = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    return [artifact for artifact in found if artifact.type == kind]


def tables(artifact: Any) -> Iterator[Any]:
    for entry in artifact.manifest.contents:
        if entry.path.endswith(".table.json"):
            yield json.loads(Path(entry.local_path).read_text())


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_checkpoints_are_versions_once_they_are_durable(
    run: Run, tmp_path: Path, wandb_records: Records, mode: str
) -> None:
    hook = MMDetWandbHook(OFFLINE, log_checkpoint=True, num_eval_images=0)
    run(SAVES, (hook, "VERY_LOW"), max_epochs=2, mode=mode)
    versions = artifacts(wandb_records(tmp_path), "model")

    assert [sorted(version.aliases) for version in versions] == [["epoch_1", "latest"], ["epoch_2", "latest"]]
    assert [(entry.path, entry.size) for version in versions for entry in version.manifest.contents] == [
        (path.name, path.stat().st_size) for path in sorted((tmp_path / "run").glob("epoch_*.pth"))
    ]


def test_nothing_is_uploaded_that_nobody_asked_for(run: Run, tmp_path: Path, wandb_records: Records) -> None:
    run(SAVES, MMDetWandbHook(OFFLINE, num_eval_images=0), max_epochs=1)

    assert artifacts(wandb_records(tmp_path), "model") == []


def test_without_a_checkpoint_hook_the_run_goes_on(run: Run, tmp_path: Path, wandb_records: Records) -> None:
    run(MMDetWandbHook(OFFLINE, log_checkpoint=True, num_eval_images=0))

    assert artifacts(wandb_records(tmp_path), "model") == []


def test_the_metrics_of_the_same_epoch_stand_with_a_checkpoint(
    run: Run, tmp_path: Path, wandb_records: Records, evaluates: dict[str, Any]
) -> None:
    hook = MMDetWandbHook(OFFLINE, log_checkpoint=True, log_checkpoint_metadata=True, num_eval_images=0)
    run(SAVES, evaluates, (hook, "VERY_LOW"), max_epochs=2)
    versions = artifacts(wandb_records(tmp_path), "model")

    assert [json.loads(version.metadata) for version in versions] == [
        {"epoch": 1, "bbox_mAP": 0.25},
        {"epoch": 2, "bbox_mAP": 0.25},
    ]


def test_iterations_are_counted_where_epochs_are_not(
    run: Run, tmp_path: Path, wandb_records: Records, evaluates: dict[str, Any]
) -> None:
    counts: dict[str, Any] = {"by_epoch": False, "interval": 2}
    hook = MMDetWandbHook(
        OFFLINE, log_checkpoint=True, log_checkpoint_metadata=True, num_eval_images=1, **counts
    )
    run({**SAVES, **counts}, {**evaluates, **counts}, (hook, "VERY_LOW"), max_iters=4)
    records = wandb_records(tmp_path)

    assert [json.loads(version.metadata) for version in artifacts(records, "model")] == [
        {"iter": 2, "bbox_mAP": 0.25},
        {"iter": 4, "bbox_mAP": 0.25},
    ]
    assert [sorted(each.aliases) for each in artifacts(records, "evaluation")] == [
        ["iter_2", "latest"],
        ["iter_4", "latest"],
    ]


def test_the_best_checkpoint_is_no_version_of_an_epoch(
    run: Run, tmp_path: Path, wandb_records: Records, evaluates: dict[str, Any]
) -> None:
    hook = MMDetWandbHook(OFFLINE, log_checkpoint=True, num_eval_images=0)
    run(SAVES, {**evaluates, "save_best": "bbox_mAP", "rule": "greater"}, (hook, "VERY_LOW"))
    names = [v.manifest.contents[0].path for v in artifacts(wandb_records(tmp_path), "model")]

    assert names == ["epoch_1.pth"]


def test_metadata_for_checkpoints_between_evaluations_is_refused(run: Run, evaluates: dict[str, Any]) -> None:
    hook = MMDetWandbHook(OFFLINE, log_checkpoint=True, log_checkpoint_metadata=True)

    with pytest.raises(ConfigError, match="every 1 would have no metrics of evaluations every 2"):
        run(SAVES, {**evaluates, "interval": 2}, hook)


def test_images_and_predictions_are_tables(
    run: Run, tmp_path: Path, wandb_records: Records, evaluates: dict[str, Any]
) -> None:
    run(evaluates, (MMDetWandbHook(OFFLINE, num_eval_images=2), "VERY_LOW"), max_epochs=2)
    records = wandb_records(tmp_path)
    (images,) = artifacts(records, "dataset")
    predictions = artifacts(records, "evaluation")
    (truth,) = tables(images)
    found = [table for artifact in predictions for table in tables(artifact)]

    names = [f"{index}.png" for index in chosen(2, 3)]
    assert [row[0] for row in truth["data"]] == names
    assert [sorted(artifact.aliases) for artifact in predictions] == [
        ["epoch_1", "latest"],
        ["epoch_2", "latest"],
    ]
    assert [table["columns"] for table in found] == [["image_name", "ground_truth", "prediction"]] * 2
    assert [row[0] for row in found[0]["data"]] == names
    _, truth_image, prediction = found[0]["data"][0]
    assert [b["box_caption"] for b in truth_image["boxes"]["ground_truth"]] == ["dog"]
    assert [b["box_caption"] for b in prediction["boxes"]["predictions"]] == ["cat 0.90"]
    assert truth_image["path"] == prediction["path"]  # one upload


def test_without_evaluations_lines_are_all_there_is(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run(MMDetWandbHook(OFFLINE, interval=2))

    assert "there is no EvalHook" in caplog.text


def test_the_images_are_the_same_each_time_and_numpy_draws_as_before() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002 - what it must not touch
    indices = chosen(5, 10)

    assert indices == chosen(5, 10)
    assert len(set(indices)) == 5
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


def test_masks_of_one_class_are_one_area() -> None:
    left, right = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    left[:, 0], right[:, 3] = 1, 1
    sample = Sample("a", np.zeros((2, 4)), [1, 1], [left, right])

    (area,) = mask_data(sample, {1: "cat", 2: "dog"}, 2, 4).values()
    assert area["mask_data"].tolist() == [[2, 0, 0, 2]] * 2


def test_boxes_below_the_score_go_with_their_masks() -> None:
    boxes = [np.array([[0, 0, 1, 1, 0.2], [0, 0, 2, 2, 0.8]]), np.zeros((0, 5))]
    sample = prediction_of("a", (boxes, [["low", "high"], []]), 0.3)

    assert (sample.boxes[:, 4].tolist(), sample.labels.tolist(), list(sample.masks)) == ([0.8], [0], ["high"])


def test_an_image_is_loaded_by_the_data_sets_own_step(tmp_path: Path) -> None:
    from asynchooks.hooks.mmcv.loggers._samples import ground_truth

    class LoadImageFromFile:
        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            assert results["img_prefix"] == str(tmp_path)
            return {"img": np.array([[[0, 0, 255]]], np.uint8)}  # BGR

    dataset = Detections(tmp_path)
    dataset.pipeline = SimpleNamespace(transforms=[LoadImageFromFile()])  # type: ignore[attr-defined]
    read = ground_truth(dataset, 0).read

    assert read is not None
    assert read().tolist() == [[[255, 0, 0]]]


def test_a_number_of_images_is_one(trackers: None) -> None:
    with pytest.raises(ConfigError, match="num_eval_images=-1"):
        MMDetWandbHook(OFFLINE, num_eval_images=-1)
