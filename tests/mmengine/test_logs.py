"""The same numbers are logged under the same names at the same steps."""

from __future__ import annotations

import math
from typing import Any

import pytest

EPOCHS = {"by_epoch": True, "max_epochs": 3}
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 5}


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "mode"}


def assert_same_lines(theirs: Any, ours: Any) -> None:
    assert len(ours.lines) == len(theirs.lines) > 0
    for mine, other in zip(map(numbers, ours.lines), theirs.lines, strict=True):
        assert set(mine) == set(other)
        for name, value in other.items():
            # A window's mean is summed in another order.
            assert math.isclose(mine[name], value, rel_tol=1e-12), (name, mine, other)


@pytest.mark.parametrize(
    ("train_cfg", "options"),
    [
        (EPOCHS, {"interval": 2}),
        (EPOCHS, {"interval": 4}),  # six batches: the last two go without a line
        (EPOCHS, {"interval": 4, "ignore_last": False}),
        (EPOCHS, {"interval": 10}),  # longer than an epoch
        (EPOCHS, {"interval": 10, "ignore_last": False}),
        (EPOCHS, {"interval": 3, "log_metric_by_epoch": False}),
        (ITERS, {"interval": 3}),
        (ITERS, {"interval": 3, "log_metric_by_epoch": False}),
        (ITERS, {"interval": 20, "ignore_last": False}),
    ],
)
def test_lines_are_due_at_the_same_steps_and_say_the_same(
    side_by_side: Any, loss_metric: Any, train_cfg: dict[str, Any], options: dict[str, Any]
) -> None:
    theirs, ours = side_by_side(
        train_cfg=train_cfg,
        default_hooks={"logger": {"type": "LoggerHook", **options}},
        log_processor={"by_epoch": train_cfg["by_epoch"]},
        metric=loss_metric,
    )

    assert_same_lines(theirs, ours)


@pytest.mark.parametrize(
    "processor",
    [
        {"window_size": 3},
        {"log_with_hierarchy": True},
        {"mean_pattern": "nothing"},
        {"custom_cfg": [{"data_src": "loss", "log_name": "highest", "method_name": "max", "window_size": 4}]},
        {
            "custom_cfg": [
                {"data_src": "loss", "log_name": "all", "method_name": "mean", "window_size": "global"},
                {"data_src": "loss", "log_name": "epoch", "method_name": "min", "window_size": "epoch"},
            ]
        },
    ],
)
def test_numbers_are_averaged_alike(side_by_side: Any, processor: dict[str, Any]) -> None:
    theirs, ours = side_by_side(
        default_hooks={"logger": {"type": "LoggerHook", "interval": 2}},
        log_processor=processor,
        optim_wrapper={
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "clip_grad": {"max_norm": 1.0},
        },
    )

    assert_same_lines(theirs, ours)


def test_a_validation_is_logged_with_its_own_loss_where_theirs_is_a_mean_over_validations(
    side_by_side: Any, scripted: Any
) -> None:
    metric = scripted([{"loss": 4.0}, {"loss": 2.0}, {"loss": 0.0}])
    theirs, ours = side_by_side(default_hooks={"logger": {"type": "LoggerHook"}}, metric=metric)
    logged = [[line["loss"] for line in run.lines if "lr" not in line] for run in (theirs, ours)]

    assert logged == [[4.0, 3.0, 2.0], [4.0, 2.0, 0.0]]
