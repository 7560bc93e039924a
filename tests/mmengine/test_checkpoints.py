"""The same checkpoints are left by the same names, with the same content; the same ones are the best."""

from __future__ import annotations

from typing import Any

import pytest
import torch

EPOCHS = {"by_epoch": True, "max_epochs": 7}
ITERS = {"by_epoch": False, "max_iters": 11, "val_interval": 3}
ACCURACIES = [0.3, 0.5, 0.4, 0.5, 0.6, 0.2, 0.6]


def hook(**options: Any) -> dict[str, Any]:
    return {"checkpoint": {"type": "CheckpointHook", **options}}


def assert_same_files(theirs: Any, ours: Any) -> None:
    assert list(ours.files) == list(theirs.files)
    for name, theirs_in in theirs.files.items():
        ours_in = ours.files[name]
        assert_equal(ours_in["state_dict"], theirs_in["state_dict"], f"{name}: weights")
        assert ("optimizer" in ours_in) == ("optimizer" in theirs_in), name
        assert_equal(ours_in.get("optimizer"), theirs_in.get("optimizer"), f"{name}: optimizer")
        assert ("param_schedulers" in ours_in) == ("param_schedulers" in theirs_in), name
        for counter in ("epoch", "iter", "seed"):
            assert ours_in["meta"][counter] == theirs_in["meta"][counter], f"{name}: {counter}"


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    """Compare tensors in dicts and lists at any depth, bit by bit; keys that only torch's version knows as well."""
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key, value in theirs.items():
            assert_equal(ours[key], value, f"{where}, {key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, value in enumerate(theirs):
            assert_equal(ours[index], value, f"{where}, {index}")
    else:
        assert ours == theirs, where


@pytest.mark.parametrize(
    ("train_cfg", "options", "left"),
    [
        (EPOCHS, {"interval": 3}, ["epoch_3", "epoch_6", "epoch_7"]),
        (EPOCHS, {"interval": 10, "by_epoch": False}, ["iter_10", "iter_14"]),
        (EPOCHS, {"interval": 7, "save_optimizer": False, "save_param_scheduler": False}, ["epoch_7"]),
        (ITERS, {"interval": 4, "by_epoch": False}, ["iter_11", "iter_4", "iter_8"]),
        (
            ITERS,
            {"interval": 2, "by_epoch": False, "max_keep_ckpts": 3},
            ["iter_10", "iter_11", "iter_8"],
        ),
    ],
)
def test_the_same_steps_are_kept(
    side_by_side: Any, train_cfg: Any, options: dict[str, Any], left: list[str]
) -> None:
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        default_hooks=hook(**options),
        samples=8,
        param_scheduler={"type": "StepLR", "step_size": 3},
    )

    assert [name.removesuffix(".pth") for name in theirs.files] == left
    assert_same_files(theirs, ours)


@pytest.mark.parametrize(
    ("train_cfg", "options", "best"),
    [
        (EPOCHS, {"save_best": "acc", "rule": "greater"}, ["best_acc_epoch_5"]),
        (EPOCHS, {"save_best": "coco/bbox_mAP"}, ["best_coco_bbox_mAP_epoch_6"]),
        (
            EPOCHS,
            {"save_best": ["acc", "loss"], "rule": ["greater", "less"]},
            ["best_acc_epoch_5", "best_loss_epoch_6"],
        ),
        (EPOCHS, {"save_best": "zero", "rule": "less"}, ["best_zero_epoch_2"]),
        (ITERS, {"save_best": "acc", "by_epoch": False}, ["best_acc_iter_6"]),
    ],
)
def test_the_same_validation_is_the_best(
    side_by_side: Any, scripted: Any, train_cfg: Any, options: dict[str, Any], best: list[str]
) -> None:
    zero = [0.2, 0.0, 0.1, 0.0, 0.3, 0.3, 0.3]
    metric = scripted(
        [
            {"acc": value, "loss": value, "coco/bbox_mAP": 1 - value, "zero": at}
            for value, at in zip(ACCURACIES, zero, strict=True)
        ]
    )
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        default_hooks=hook(interval=-1, save_last=False, **options),
        metric=metric,
        samples=8,
    )

    assert [name.removesuffix(".pth") for name in theirs.files] == best
    assert_same_files(theirs, ours)
    keys = ["best_score", "best_ckpt"] if len(best) == 1 else ["best_score_acc", "best_ckpt_acc"]
    for key in keys:
        mine, other = (str(run.runner.message_hub.get_info(key)).rpartition("/")[2] for run in (ours, theirs))
        assert mine == other, key


@pytest.mark.parametrize(("interval", "max_keep_ckpts"), [(1, 2), (2, 1), (3, -1), (-1, -1)])
def test_steps_saved_along_with_a_best_are_the_same(
    side_by_side: Any, scripted: Any, interval: int, max_keep_ckpts: int
) -> None:
    metric = scripted([{"acc": value} for value in ACCURACIES])
    theirs, ours = side_by_side(
        train_cfg=EPOCHS,
        default_hooks=hook(interval=interval, max_keep_ckpts=max_keep_ckpts, save_best="acc"),
        metric=metric,
        samples=8,
    )

    assert len(theirs.files) > 1
    assert_same_files(theirs, ours)
