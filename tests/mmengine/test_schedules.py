"""In a whole run, every schedule gives every iteration the rate and the momentum that MMEngine's run has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9}
ADAM = {"type": "Adam", "lr": 0.01, "betas": (0.9, 0.99)}
EPOCHS = {"by_epoch": True, "max_epochs": 4}
ITERS = {"by_epoch": False, "max_iters": 15}

# Six iterations per epoch.
FAMILIES: list[dict[str, Any]] = [
    {"type": "StepLR", "step_size": 2, "gamma": 0.5},
    {"type": "MultiStepLR", "milestones": [1, 3], "gamma": 0.3},
    {"type": "ConstantLR", "factor": 0.25, "end": 3},
    {"type": "ExponentialLR", "gamma": 0.8},
    {"type": "CosineAnnealingLR", "T_max": 3, "eta_min": 1e-3},
    {"type": "CosineAnnealingLR", "T_max": 4, "eta_min_ratio": 0.1, "begin": 1},
    {"type": "LinearLR", "start_factor": 0.1, "end": 3},
    {"type": "PolyLR", "power": 0.9, "eta_min": 1e-4, "end": 4},
    {"type": "CosineRestartLR", "periods": [2, 2], "restart_weights": [1, 0.5], "eta_min": 1e-3},
    {"type": "StepMomentum", "step_size": 1, "gamma": 0.9},
    {"type": "CosineAnnealingMomentum", "T_max": 3, "eta_min": 0.5},
    {"type": "LinearParamScheduler", "param_name": "weight_decay", "start_factor": 0.5, "end": 3},
]


def name_of(cfg: Any) -> str:
    return "+".join(each["type"] for each in cfg) if isinstance(cfg, list) else str(cfg["type"])


@pytest.mark.parametrize("cfg", FAMILIES, ids=name_of)
@pytest.mark.parametrize("counted", ["epochs", "iterations", "epochs as iterations"])
def test_a_family_is_followed(
    side_by_side: Any, assert_same_training: Callable[..., None], cfg: dict[str, Any], counted: str
) -> None:
    options = {**cfg, "by_epoch": counted != "iterations"}
    if counted == "epochs as iterations":
        options["convert_to_iter_based"] = True
        options.setdefault("end", 4)
    optimizer = {**SGD, "weight_decay": 0.01}
    theirs, ours = side_by_side(
        train_cfg=EPOCHS, optim_wrapper={"optimizer": optimizer}, param_scheduler=options
    )

    assert_same_training(theirs, ours)
    assert max(len({*map(str, values)}) for values in (theirs.rates, theirs.momenta, theirs.decays)) > 1


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["SGD", "Adam"])
@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "OneCycleLR", "eta_max": 0.5, "total_steps": 15, "by_epoch": False},
        [
            {"type": "LinearLR", "start_factor": 0.01, "begin": 0, "end": 5, "by_epoch": False},
            {"type": "CosineAnnealingLR", "T_max": 10, "begin": 5, "end": 15, "by_epoch": False},
        ],
        [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 4},
            {"type": "LinearMomentum", "start_factor": 0.5, "by_epoch": False, "end": 6},
            {"type": "MultiStepLR", "milestones": [8, 12], "by_epoch": False},
        ],
    ],
    ids=name_of,
)
def test_schedules_follow_each_other_and_go_side_by_side(
    side_by_side: Any, assert_same_training: Callable[..., None], cfg: Any, optimizer: dict[str, Any]
) -> None:
    theirs, ours = side_by_side(
        train_cfg=ITERS, optim_wrapper={"optimizer": optimizer}, param_scheduler=cfg, samples=64
    )

    assert_same_training(theirs, ours)
    assert len({*map(str, theirs.rates)}) > 3


def test_a_plateau_is_seen_at_the_same_validation(
    side_by_side: Any, assert_same_training: Callable[..., None], scripted: Any
) -> None:
    metric = scripted([{"acc": value} for value in (0.5, 0.6, 0.6, 0.6, 0.7, 0.7)])
    theirs, ours = side_by_side(
        train_cfg={"by_epoch": True, "max_epochs": 6},
        param_scheduler={
            "type": "ReduceOnPlateauLR",
            "monitor": "acc",
            "rule": "greater",
            "factor": 0.5,
            "patience": 0,
        },
        metric=metric,
    )

    assert_same_training(theirs, ours)
    assert len({*map(str, theirs.rates)}) == 3
