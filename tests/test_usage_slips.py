"""Slips in what users of MMEngine and MMDetection write: each is refused at construction, with the right form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.errors import AsyncHooksError
from asynchooks.runner import Runner


def runner(work_dir: Path, **options: Any) -> Runner:
    given: dict[str, Any] = {
        "model": torch.nn.Linear(4, 2),
        "work_dir": str(work_dir),
        "train_dataloader": [torch.ones(2, 4)],
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.05}},
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
    }
    return Runner(**(given | options))


@pytest.mark.parametrize(
    ("hook", "right_form"),
    [
        ({"type": "EMAHook", "momentom": 0.1}, "momentum"),
        ({"type": "EMAHook", "ema_type": "ExpMomentumEma"}, "ExpMomentumEMA"),
        ({"type": "EarlyStoppingHook", "monitor": "accuracy", "patiance": 3}, "patience"),
        ({"type": "EarlyStopingHook", "monitor": "accuracy"}, "EarlyStoppingHook"),
        ({"type": "YOLOXModeSwitchHook", "num_last_epoch": 15}, "num_last_epochs"),
        ({"type": "EmptyCacheHook", "after_epoc": True}, "after_epoch"),
        ({"type": "CheckInvalidLossHook", "internal": 50}, "interval"),
        ({"type": "ProfilerHook", "profile_time": 1}, "profile_times"),
        ({"type": "mmdet.SyncNormHok"}, "SyncNormHook"),
        ({"interval": 3}, "type"),
    ],
)
def test_a_slip_in_a_custom_hook_names_the_right_form(
    tmp_path: Path, hook: dict[str, Any], right_form: str
) -> None:
    with pytest.raises((AsyncHooksError, TypeError), match=right_form):
        runner(tmp_path, custom_hooks=[hook])


@pytest.mark.parametrize(
    ("options", "right_form"),
    [
        ({"optim_wrapper": {"type": "OptimWrapper", "optimzer": {"type": "SGD", "lr": 1}}}, "optimizer"),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1}, "clip_grads": {}}}, "clip_grad"),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1}, "clip_grad": {"max_nom": 1}}}, "max_norm"),
        (
            {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1}, "paramwise_cfg": {"bias_lr_mul": 2}}},
            "bias_lr_mult",
        ),
        ({"param_scheduler": {"type": "MultiStepLR", "milestone": [1]}}, "milestones"),
        ({"param_scheduler": {"type": "MultistepLR", "milestones": [1]}}, "MultiStepLR"),
        ({"train_cfg": {"by_epoch": True, "max_epochs": 1, "val_intervals": 1}}, "val_interval"),
        ({"train_cfg": {"by_epoch": False, "max_epochs": 1}}, "max_iters"),
        ({"default_hooks": {"checkpoint": {"type": "CheckpointHook", "save_bests": "auto"}}}, "save_best"),
        ({"default_hooks": {"logger": {"type": "LoggerHook", "intervall": 1}}}, "interval"),
        ({"optimizer": {"type": "SGD", "lr": 0.1}}, "optim_wrapper"),
        ({"scheduler": {"type": "StepLR", "step_size": 1}}, "param_scheduler"),
        ({"val_evaluator": [{"type": "Accuracy"}]}, "val_dataloader"),
        ({"log_procesor": {}}, "log_processor"),
        ({"randomness": {"sed": 1}}, "seed"),
        ({"visualizer": {"type": "Visualiser"}}, "Visualizer"),
    ],
)
def test_a_slip_in_an_argument_names_the_right_form(
    tmp_path: Path, options: dict[str, Any], right_form: str
) -> None:
    with pytest.raises((AsyncHooksError, TypeError), match=right_form):
        runner(tmp_path, **options)
