"""A log processor of the same options gives the same numbers, save one that theirs mixes."""

from __future__ import annotations

import math
from typing import Any

import pytest


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
