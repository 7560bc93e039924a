"""The same configuration gives the same training: losses, rates, momenta, weights, points, counters, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

EPOCHS = {"by_epoch": True, "max_epochs": 3}
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 5}
SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
ADAMW = {"type": "AdamW", "lr": 0.01, "betas": (0.8, 0.99)}
BOTH_LOOPS = pytest.mark.parametrize("train_cfg", [EPOCHS, ITERS], ids=["epochs", "iterations"])


@BOTH_LOOPS
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
def test_both_loops_train_alike(
    side_by_side: Any, assert_same_training: Callable[..., None], train_cfg: Any, optimizer: Any
) -> None:
    theirs, ours = side_by_side(train_cfg=train_cfg, optim_wrapper={"optimizer": optimizer})

    assert_same_training(theirs, ours)


@pytest.mark.parametrize(
    ("train_cfg", "validations"),
    [
        ({"by_epoch": True, "max_epochs": 5, "val_interval": 2}, 3),
        ({"by_epoch": True, "max_epochs": 5, "val_interval": 2, "val_begin": 4}, 2),
        ({"by_epoch": True, "max_epochs": 6, "val_interval": 3, "dynamic_intervals": [(4, 1)]}, 4),
        (
            {"by_epoch": True, "max_epochs": 8, "val_interval": 2, "dynamic_intervals": [(3, 3), (7, 1)]},
            4,
        ),
        ({"by_epoch": False, "max_iters": 14, "val_interval": 5}, 3),
        ({"by_epoch": False, "max_iters": 14, "val_interval": 4, "val_begin": 9}, 2),
        ({"by_epoch": False, "max_iters": 14, "val_interval": 5, "dynamic_intervals": [(8, 2)]}, 5),
        ({"by_epoch": False, "max_iters": 12, "val_interval": 100}, 1),
    ],
)
def test_validations_run_at_the_same_steps_on_the_same_weights(
    side_by_side: Any,
    assert_same_training: Callable[..., None],
    loss_metric: Any,
    train_cfg: Any,
    validations: int,
) -> None:
    theirs, ours = side_by_side(train_cfg=train_cfg, metric=loss_metric)

    assert len(theirs.metrics) == validations
    assert_same_training(theirs, ours)


@BOTH_LOOPS
@pytest.mark.parametrize("counts", [2, 3, 4, 5])
def test_gradients_are_accumulated_alike_and_so_is_the_remainder(
    side_by_side: Any, assert_same_training: Callable[..., None], train_cfg: Any, counts: int
) -> None:
    wrapper = {"optimizer": ADAMW, "accumulative_counts": counts}
    theirs, ours = side_by_side(train_cfg=train_cfg, optim_wrapper=wrapper, samples=28)

    assert_same_training(theirs, ours)


@pytest.mark.parametrize(
    "clip_grad",
    [
        {"max_norm": 0.3},
        {"type": "norm", "max_norm": 0.3, "norm_type": 1},
        {"max_norm": 0.2, "norm_type": float("inf")},
        {"type": "value", "clip_value": 0.05},
    ],
)
@pytest.mark.parametrize("counts", [1, 3])
def test_gradients_are_clipped_alike(
    side_by_side: Any, assert_same_training: Callable[..., None], clip_grad: Any, counts: int
) -> None:
    wrapper = {"optimizer": SGD, "clip_grad": clip_grad, "accumulative_counts": counts}
    theirs, ours = side_by_side(optim_wrapper=wrapper)
    plain, _ = side_by_side(optim_wrapper={"optimizer": SGD, "accumulative_counts": counts})

    assert_same_training(theirs, ours)
    assert theirs.losses != plain.losses  # it did clip


@pytest.mark.parametrize("name", ["grad_norm"])
def test_the_norm_of_the_gradients_is_logged_alike(side_by_side: Any, name: str) -> None:
    wrapper = {"optimizer": SGD, "clip_grad": {"max_norm": 0.3}}
    theirs, ours = side_by_side(optim_wrapper=wrapper)
    histories = [
        run.runner.message_hub.get_scalar(f"train/{name}").data[0].tolist() for run in (theirs, ours)
    ]

    assert histories[1] == histories[0]
    assert len(histories[0]) == len(theirs.losses)
