"""A training that stops early stops after the same validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

EPOCHS = {"by_epoch": True, "max_epochs": 12}
ITERS = {"by_epoch": False, "max_iters": 24, "val_interval": 2}
UP = [0.1, 0.5, 0.52, 0.51, 0.55, 0.55, 0.55, 0.55, 0.55, 0.56, 0.56, 0.56]
INF = float("inf")


@pytest.mark.parametrize("train_cfg", [EPOCHS, ITERS], ids=["epochs", "iterations"])
@pytest.mark.parametrize(
    ("options", "values", "validations"),
    [
        ({"monitor": "acc", "patience": 3}, UP, 5),
        ({"monitor": "acc", "patience": 3, "min_delta": 0.02}, UP, 8),
        ({"monitor": "score", "rule": "less", "patience": 2}, UP, 3),
        ({"monitor": "loss", "patience": 2, "min_delta": 0.01}, [1 - value for value in UP], 7),
        ({"monitor": "acc", "patience": 9}, [0.1, 0.2, float("nan"), *UP[3:]], 3),
        ({"monitor": "acc", "patience": 9}, [0.1, 0.2, INF, *UP[3:]], 3),
        ({"monitor": "acc", "patience": 3, "check_finite": False}, [0.1, INF, *UP[2:]], 5),
        ({"monitor": "elsewhere", "rule": "greater"}, UP, 12),
    ],
)
@pytest.mark.filterwarnings("ignore:Skip early stopping process:UserWarning")
def test_patience_ends_at_the_same_validation(
    side_by_side: Any,
    assert_same_training: Callable[..., None],
    scripted: Any,
    train_cfg: dict[str, Any],
    options: dict[str, Any],
    values: list[float],
    validations: int,
) -> None:
    metric = scripted([{options["monitor"].replace("elsewhere", "acc"): value} for value in values])
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        custom_hooks=[{"type": "EarlyStoppingHook", **options}],
        metric=metric,
        samples=8,
    )

    assert str(ours.metrics) == str(theirs.metrics)  # as text, in which nan is nan
    assert len(theirs.metrics) == validations
    assert ours.points == theirs.points
    assert ours.losses == theirs.losses
