"""Two real ranks agree on buffers, and only then when they should; they accumulate gradients apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.execution import HookExecutor
from asynchooks.hooks.sync_buffers import SyncBuffersHook
from asynchooks.optim import OptimWrapper
from asynchooks.registry import HOOKS
from asynchooks.runner import TrainState


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run the program on two ranks and return what each has seen."""
    meeting = tmp_path_factory.mktemp("ranks") / "meeting"
    program = Path(__file__).with_name("ranks_program.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(meeting)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_without_other_ranks_nothing_changes(ranks: list[dict[str, Any]]) -> None:
    assert [seen["alone"]["mean"] for seen in ranks] == [[1.0, 3.0], [2.0, 6.0]]


def test_after_an_epoch_every_rank_has_the_mean_of_each_buffer(ranks: list[dict[str, Any]]) -> None:
    for rank, seen in enumerate(ranks):
        values = seen["after_train_epoch"]
        assert values["mean"] == [1.5, 4.5]
        assert values["short"] == [0.5]
        assert values["count"] == 3  # of 2 and 5, rounded down
        assert values["seen"] == [True, False]
        assert values["weight"] == [float(rank)]  # a parameter is the optimizer's matter


def test_a_validation_synchronizes_unless_the_epoch_has(ranks: list[dict[str, Any]]) -> None:
    assert [seen["val after an epoch"]["mean"] for seen in ranks] == [[1.5, 4.5], [11.5, 14.5]]
    assert [seen["val between iterations"]["mean"] for seen in ranks] == [[6.5, 9.5], [6.5, 9.5]]


def test_mmcvs_hook_synchronizes_after_epochs_of_any_mode_unless_switched_off(
    ranks: list[dict[str, Any]],
) -> None:
    assert [seen["mmcv, switched off"]["mean"] for seen in ranks] == [[6.5, 9.5], [16.5, 19.5]]
    assert [seen["mmcv"]["mean"] for seen in ranks] == [[11.5, 14.5], [11.5, 14.5]]


def test_ranks_accumulate_apart_and_step_together(ranks: list[dict[str, Any]]) -> None:
    first, second = (seen["accumulated"] for seen in ranks)
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), accumulative_counts=2)
    for index in range(4):
        wrapper.update_params(
            torch.stack([model(torch.full((1, 2), float(index + at))) for at in (0, 4)]).mean()
        )

    assert [one == other for one, other in zip(first["grads"], second["grads"], strict=True)] == [
        False,
        True,
        False,
        True,
    ]
    assert first["weights"] == second["weights"]
    for found, expected in zip(first["weights"], model.parameters(), strict=True):
        torch.testing.assert_close(torch.tensor(found), expected.detach())


def test_a_process_of_its_own_needs_no_group() -> None:
    model = nn.BatchNorm1d(2)
    before = {name: value.clone() for name, value in model.named_buffers()}

    with HookExecutor([SyncBuffersHook()]) as executor:
        executor.fire("after_train_epoch", TrainState(model))
        executor.fire("before_val_epoch", TrainState(model))

    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    with pytest.raises(ConfigError, match="distributed is True or False"):
        HOOKS.build({"type": "mmcv.SyncBuffersHook", "distributed": "yes"})
