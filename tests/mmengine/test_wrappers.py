"""Mixed precision, averaged weights and parameter groups, each in a whole run beside MMEngine's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mmengine.optim.optimizer.amp_optimizer_wrapper as their_precision
import pytest
import torch

SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9}
ADAMW = {"type": "AdamW", "lr": 0.01, "weight_decay": 0.1}
EPOCHS = {"by_epoch": True, "max_epochs": 3}
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 5}
BOTH_LOOPS = pytest.mark.parametrize("train_cfg", [EPOCHS, ITERS], ids=["epochs", "iterations"])


@pytest.fixture
def their_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs asks for a GPU; torch's own parts, which do the work, do it on a CPU as well."""
    monkeypatch.setattr(their_precision, "is_cuda_available", lambda: True)
    monkeypatch.setattr(their_precision, "GradScaler", partial(torch.amp.GradScaler, "cpu"))


@BOTH_LOOPS
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "loss_scale": 128.0},
        {"dtype": "bfloat16", "loss_scale": {"init_scale": 1024.0, "growth_interval": 4}},
        {"dtype": "bfloat16", "accumulative_counts": 4, "clip_grad": {"max_norm": 0.3}},
    ],
    ids=str,
)
@pytest.mark.usefixtures("their_precision_on_a_cpu")
def test_mixed_precision_trains_alike(
    side_by_side: Any, assert_same_training: Callable[..., None], train_cfg: Any, options: dict[str, Any]
) -> None:
    wrapper = {"type": "AmpOptimWrapper", "optimizer": SGD, **options}
    theirs, ours = side_by_side(train_cfg=train_cfg, optim_wrapper=wrapper)
    plain = {name: value for name, value in options.items() if name not in ("dtype", "loss_scale")}
    whole, _ = side_by_side(train_cfg=train_cfg, optim_wrapper={"optimizer": SGD, **plain})
    scales = [run.runner.optim_wrapper.loss_scaler.get_scale() for run in (theirs, ours)]

    assert_same_training(theirs, ours)
    assert scales[0] == scales[1]
    assert theirs.losses != whole.losses


@BOTH_LOOPS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.1},
        {"momentum": 0.1, "interval": 3},
        {"momentum": 0.1, "update_buffers": True},
        {"ema_type": "StochasticWeightAverage"},
        {"ema_type": "StochasticWeightAverage", "interval": 2},
        {"ema_type": "MomentumAnnealingEMA", "gamma": 5},
        {"momentum": 0.2, "begin_iter": 5},
        {"momentum": 0.2, "begin_epoch": 2},
    ],
    ids=str,
)
def test_averaged_weights_are_validated_and_saved_alike(
    side_by_side: Any,
    assert_same_training: Callable[..., None],
    loss_metric: Any,
    train_cfg: dict[str, Any],
    options: dict[str, Any],
) -> None:
    if not train_cfg["by_epoch"] and "begin_epoch" in options:
        pytest.skip("an iteration-based training has one epoch")
    saving = {"type": "CheckpointHook", "by_epoch": train_cfg["by_epoch"], "interval": 2, "save_best": "nll"}
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        custom_hooks=[{"type": "EMAHook", **options}],
        default_hooks={"checkpoint": {**saving, "rule": "less"}},
        metric=loss_metric,
    )

    assert_same_training(theirs, ours)
    assert list(ours.files) == list(theirs.files)
    for name, theirs_in in theirs.files.items():
        for part in ("state_dict", "ema_state_dict"):
            assert list(ours.files[name][part]) == list(theirs_in[part])
            for key, value in theirs_in[part].items():
                assert torch.equal(ours.files[name][part][key], value), (name, part, key)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize(
    "paramwise_cfg",
    [
        {"norm_decay_mult": 0.0, "bias_lr_mult": 2.0, "bias_decay_mult": 0.5},
        {"custom_keys": {"body": {"lr_mult": 0.1, "decay_mult": 0.9}, "body.0": {"lr_mult": 0.5}}},
        {"norm_decay_mult": 0.0, "custom_keys": {"head": {"decay_mult": 0.0}}, "bypass_duplicate": True},
        {"flat_decay_mult": 0.0},
    ],
    ids=str,
)
def test_parameter_groups_are_trained_alike(
    side_by_side: Any, assert_same_training: Callable[..., None], optimizer: Any, paramwise_cfg: Any
) -> None:
    wrapper = {"optimizer": {"weight_decay": 0.05, **optimizer}, "paramwise_cfg": paramwise_cfg}
    theirs, ours = side_by_side(
        optim_wrapper=wrapper,
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 5},
            {"type": "MultiStepLR", "milestones": [1, 2]},
        ],
    )

    assert_same_training(theirs, ours)
    assert len(theirs.rates[0]) == 7  # a group for each parameter, and the base rate
