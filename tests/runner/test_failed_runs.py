"""What a run that failed leaves behind does not reach the next one, and hooks may serve several runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks.execution import Effects, Hook
from asynchooks.hooks import (
    EarlyStoppingHook,
    EMAHook,
    ExpMomentumEMAHook,
    MemoryProfilerHook,
    PrepareTTAHook,
)
from asynchooks.registry import MODELS

from .conftest import MakeRunner, Net, Noisy
from .resuming import assert_equal


class FailOnce(Hook):
    """Raises at a point, the first time."""

    effects = Effects()
    changes_state = False
    has_failed = False

    def __init__(self, point: str) -> None:
        setattr(self, point, self._fail)

    def _fail(self, runner: Any, **_: Any) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError


class Positions(Hook):
    """Notes where a checkpoint of each iteration's beginning would go on, and where the run is."""

    effects = Effects()
    changes_state = False

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int, int]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        position = runner.train_loop.position()
        self.found.append((position["epoch"], position["iter"], runner.epoch, runner.iter))


@MODELS.register_module()
class Doubled(nn.Module):
    """A model that augments, as far as its class goes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = self.module(batch)
        return loss


@pytest.mark.parametrize("point", ["after_train_iter", "after_train_epoch"])
def test_positions_are_right_after_a_run_that_failed_inside_a_firing(
    make_runner: MakeRunner, point: str
) -> None:
    positions = Positions()
    runner = make_runner(custom_hooks=[FailOnce(point), positions])
    with pytest.raises(ZeroDivisionError):
        runner.train()
    runner.train()

    assert all(found[:2] == found[2:] for found in positions.found)


def test_a_model_that_a_failed_test_has_left_wrapped_is_trained_as_itself(make_runner: MakeRunner) -> None:
    hooks = [PrepareTTAHook({"type": "Doubled"}), FailOnce("before_test_iter")]
    runner = make_runner(custom_hooks=hooks, test_dataloader=DataLoader(Noisy(), batch_size=5))
    with pytest.raises(ZeroDivisionError):
        runner.test()

    assert type(runner.train()) is Net


@pytest.mark.parametrize("kind", [EMAHook, ExpMomentumEMAHook])
def test_averages_that_a_failed_validation_has_left_are_not_trained(
    make_runner: MakeRunner, kind: Any
) -> None:
    ends = []
    for hooks in ([FailOnce("before_val_iter")], []):
        runner = make_runner(
            custom_hooks=[kind(momentum=0.3), *hooks],
            train_cfg={"by_epoch": False, "max_iters": 6, "val_interval": 3},
            train_dataloader=[(torch.eye(4), torch.tensor([0, 1, 0, 1])) for _ in range(20)],
            randomness=None,
        )
        if hooks:
            with pytest.raises(ZeroDivisionError):
                runner.train()
        runner.train()
        ends.append(runner.optim_wrapper.state_dict()["state"])

    assert_equal(*ends)


def test_one_averaging_hook_serves_one_run_after_the_other(make_runner: MakeRunner) -> None:
    hook = ExpMomentumEMAHook(momentum=0.3)
    ends = []
    for hooks in ([hook], [hook], [ExpMomentumEMAHook(momentum=0.3)]):
        runner = make_runner(custom_hooks=hooks)
        runner.train()
        ends.append(runner.model.state_dict())

    assert_equal(ends[1], ends[2])


def test_early_stopping_counts_each_training_anew(make_runner: MakeRunner) -> None:
    hook = EarlyStoppingHook("loss", rule="greater", min_delta=9.0, patience=2)
    ends = []
    for _ in range(2):
        runner = make_runner(custom_hooks=[hook], train_cfg={"by_epoch": True, "max_epochs": 5})
        runner.train()
        ends.append(runner.epoch)

    assert ends == [3, 3]


def test_the_line_about_memory_is_written_in_a_worker_thread(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        make_runner(custom_hooks=[MemoryProfilerHook(interval=5)]).train()

    threads = {each.threadName for each in caplog.records if each.getMessage().startswith("Memory")}
    assert threads
    assert all("worker" in str(name) for name in threads)
