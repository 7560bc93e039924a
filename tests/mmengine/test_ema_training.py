"""Whole trainings with EMAHook and with parameter groups, through both projects' runners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

EPOCHS = {"by_epoch": True, "max_epochs": 3}
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 5}
CHECKPOINT = {"type": "CheckpointHook", "interval": 1, "save_best": "loss", "rule": "less"}


@pytest.mark.parametrize("train_cfg", [EPOCHS, ITERS], ids=["epochs", "iterations"])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.2},
        {"ema_type": "StochasticWeightAverage", "interval": 2, "update_buffers": True},
        {"ema_type": "MomentumAnnealingEMA", "gamma": 5, "begin_iter": 4},
    ],
)
def test_averages_serve_and_are_saved_alike(
    side_by_side: Any,
    assert_same_training: Callable[..., None],
    loss_metric: Any,
    train_cfg: dict[str, Any],
    options: dict[str, Any],
) -> None:
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        metric=loss_metric,
        default_hooks={"checkpoint": {**CHECKPOINT, "by_epoch": train_cfg["by_epoch"]}},
        custom_hooks=[{"type": "EMAHook", **options}],
    )

    assert_same_training(theirs, ours)
    assert ours.files.keys() == theirs.files.keys()
    assert len(theirs.files) >= 4
    for name, expected in theirs.files.items():
        for part in ("state_dict", "ema_state_dict"):
            assert ours.files[name][part].keys() == expected[part].keys()
            for key, value in expected[part].items():
                assert torch.equal(ours.files[name][part][key], value), (name, part, key)


@pytest.mark.parametrize(
    "paramwise_cfg",
    [
        {"norm_decay_mult": 0.0, "bias_lr_mult": 2.0},
        {"custom_keys": {"body": {"lr_mult": 0.1, "decay_mult": 0.5}, "body.1": {"lr_mult": 3.0}}},
    ],
)
def test_parameter_groups_train_alike(
    side_by_side: Any, assert_same_training: Callable[..., None], paramwise_cfg: dict[str, Any]
) -> None:
    optimizer = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}

    theirs, ours = side_by_side(
        optim_wrapper={"optimizer": optimizer, "paramwise_cfg": paramwise_cfg},
        param_scheduler={"type": "CosineAnnealingLR", "T_max": 3, "eta_min": 0.01},
    )

    assert_same_training(theirs, ours)
    assert len(theirs.rates[0]) > 2


def test_learning_rates_are_scaled_alike(
    side_by_side: Any, assert_same_training: Callable[..., None]
) -> None:
    theirs, ours = side_by_side(auto_scale_lr={"base_batch_size": 16, "enable": True})

    assert_same_training(theirs, ours)
    assert theirs.rates[0] == [0.1 / 4]
